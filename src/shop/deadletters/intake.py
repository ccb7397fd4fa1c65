"""A record of the dead-letter topic, whoever wrote it, as a letter that can be redriven.

Ours tell all. Spring's have its headers around the record's own value. Java's wrap a whole envelope
and tell nothing: what it is, the envelope says. Anything else is kept as it came.
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from shop.kafka.correlation import MAX_LENGTH, bounded
from shop.kafka.dead_letter import LONGEST_MESSAGE, LONGEST_TRACE
from shop.kafka.errors import WireError
from shop.kafka.ids import derived_id
from shop.kafka.letter import (
    ID,
    REDRIVE,
    REDRIVE_OF,
    TITLE,
    DeadLetterCodec,
    Letter,
    Unwrapped,
    opened,
    own_headers,
    with_event_id,
)
from shop.kafka.topic import Topic
from shop.kafka.wire import REDRIVE_TO, Headers, Message, received_ids
from shop.topics import ALL, DEADLETTER

LONGEST_NAME = 300  # characters of an id, a topic, a group or an exception's name
LARGEST = 2**63 - 1

_KNOWN = {topic.name: topic for topic in ALL if topic is not DEADLETTER}


class Received(msgspec.Struct, frozen=True):
    """The value of a record of the dead-letter topic, as it came and as what it may be."""

    value: bytes | None
    unwrapped: Unwrapped


class ReceivedCodec:
    """Takes any bytes, and null."""

    event_type: Any = Received
    fixed_headers: Headers = []  # noqa: RUF012 - never written to
    carries_correlation_id = True
    _letters = DeadLetterCodec()

    def encode(self, event: Received, correlation_id: str) -> bytes:
        raise WireError("what was read of a dead letter is not sent")

    def decode(self, value: bytes | None) -> tuple[Received, str | None]:
        unwrapped, correlation_id = self._letters.decode(value)
        return Received(value, unwrapped), correlation_id


LETTERS = Topic(DEADLETTER.name, ReceivedCodec())


def letter_identity(message: Message[Received]) -> str:
    """What makes a failure one: our letter's event id. Another system's letter may carry that of
    the record it is about, however often that one fails; so it is known by its place."""
    if message.header(ID):
        return message.event_id
    return f"{message.partition}-{message.offset}"


def letter_of(message: Message[Received]) -> Letter:
    """Never raises. The texts are such that any database takes them."""
    event = message.event
    try:
        letter = opened(_as(message, event.unwrapped))
    except ValueError:  # headers that only look like a letter's
        return _storable(_as_it_came(message))
    if message.header(ID):
        return _storable(letter)
    if letter.topic is not None:
        return _storable(_springs(message, letter))
    if event.unwrapped.is_letter:
        return _storable(_javas(letter))
    return _storable(_as_it_came(message))


def _as(message: Message[Received], unwrapped: Unwrapped) -> Message[Unwrapped]:
    same: Any = message
    found: Message[Unwrapped] = replace(same, event=unwrapped)
    return found


def _as_it_came(message: Message[Received]) -> Letter:
    event_id = message.event_id
    headers = [(n, v) for n, v in message.headers if not n.startswith(REDRIVE)]
    return Letter(
        derived_id(event_id, TITLE, message.partition, message.offset),
        message.event.value,
        message.raw_key,
        with_event_id(event_id, headers),
        event_id,
        message.correlation_id,
    )


def _springs(message: Message[Received], letter: Letter) -> Letter:
    """Its value is the record's own, even where it looks like a letter. The event id is what the
    record's readers know it by, so that what some of them have handled they do not handle again."""
    value = message.event.value
    headers = own_headers(message.headers)
    event_id, correlation_id, *_ = received_ids(
        headers,
        _correlation_id(value),
        letter.topic or "",
        letter.partition or 0,
        letter.offset or 0,
    )
    group = (letter.group or "").encode()
    told = message.header(REDRIVE_OF) if message.header(REDRIVE_TO) == group else None
    first = derived_id(event_id, letter.group, TITLE, letter.topic, letter.partition, letter.offset)
    return replace(
        letter,
        id=told.decode("utf-8", "replace") if told else first,
        value=value,
        headers=with_event_id(event_id, headers),
        event_id=event_id,
        correlation_id=correlation_id,
    )


def _javas(letter: Letter) -> Letter:
    """Topic and key of the record within, by its own envelope; the same record that fails again is
    the same letter."""
    correlation_id = _correlation_id(letter.value)
    topic = _last_topic(correlation_id or "")
    if topic is None:
        return letter
    event_id, correlation_id, *_ = received_ids([], correlation_id, topic.name, 0, 0)
    return replace(
        letter,
        id=derived_id(event_id, TITLE, topic),
        key=_key(topic, letter.value),
        headers=with_event_id(event_id, letter.headers),
        event_id=event_id,
        correlation_id=correlation_id,
        topic=topic.name,
    )


def _last_topic(correlation_id: str) -> Topic[Any] | None:
    """The one that a correlation id was last sent to, if it is one of ours."""
    hop = correlation_id.rpartition("-_")[2]
    return _KNOWN.get(hop.rpartition("(")[0])


def _key(topic: Topic[Any], value: bytes | None) -> bytes | None:
    if topic.key is None:
        return None
    try:
        return topic.key(topic.codec.decode(value)[0]).encode()
    except (WireError, UnicodeEncodeError):
        return None


class _Correlation(msgspec.Struct):
    id: str | None = None


class _Correlated(msgspec.Struct):
    correlationId: _Correlation | None = None


_correlated = msgspec.json.Decoder(_Correlated)


def _correlation_id(value: bytes | None) -> str | None:
    try:
        found = _correlated.decode(value or b"").correlationId
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found.id if found else None


def _storable(letter: Letter) -> Letter:
    known = letter.id.isascii() and letter.id.replace("-", "").isalnum()
    return replace(
        letter,
        # It stands in paths and in an index.
        id=letter.id if known and len(letter.id) <= LONGEST_NAME else derived_id("", letter.id),
        event_id=_text(letter.event_id, LONGEST_NAME),
        correlation_id=_correlation(letter.correlation_id),
        topic=_text(letter.topic, LONGEST_NAME),
        group=_text(letter.group, LONGEST_NAME),
        exception=_text(letter.exception, LONGEST_NAME),
        message=_text(letter.message, LONGEST_MESSAGE),
        stacktrace=_text(letter.stacktrace, LONGEST_TRACE),
        attempts=None if letter.attempts is None else min(letter.attempts, LARGEST),
    )


def _correlation(text: str | None) -> str | None:
    return text and bounded(_text(text, 2 * MAX_LENGTH) or "")


def _text(text: str | None, longest: int) -> str | None:
    """Without NUL, which PostgreSQL does not take."""
    return text and text[:longest].replace("\0", "\ufffd")
