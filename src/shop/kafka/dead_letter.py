"""Dead letters: a record that a group could not handle, with all that brings it back as it was.

The value is an envelope that readers of `java.lang.String` or `[B` (signed bytes) understand. The
headers are the record's own, Spring's `kafka_dlt-…` for where it was and what went wrong, and
`dead-letter-…` for what those have no name for. None of them grows when a letter is redriven and
fails again: what was added is taken off before.
"""

import logging
import traceback
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from shop.kafka import correlation
from shop.kafka.admin import largest_record
from shop.kafka.connection import Connection
from shop.kafka.errors import DeadLetterTooLarge, WireError
from shop.kafka.ids import derived_id
from shop.kafka.template import KafkaTemplate, OutboundRecord
from shop.kafka.wire import EVENT_ID, REDRIVE_TO, Headers, Message, received_ids

log = logging.getLogger(__name__)

TITLE = "DeadLetter"
SPRING, OURS, REDRIVE = "kafka_dlt-", "dead-letter-", "redrive-"
ID = OURS + "id"
ITS_EVENT_ID = OURS + "event-id"
ATTEMPTS = OURS + "attempts"
WAS_NULL = OURS + "value-was-null"
REDRIVE_OF = REDRIVE + "of"  # the id of the letter that it was

LARGEST = 8 * 1024 * 1024  # bytes of a letter; what was 1 MB may be 6 MB as JSON
OVERHEAD = 65_536  # of what Kafka adds
LARGEST_ON_TOPIC = LARGEST + OVERHEAD  # max.message.bytes
LONGEST_MESSAGE = 1_000  # characters, also of other texts in headers
LONGEST_TRACE = 8_000

_TEXT, _BYTES = "java.lang.String", "[B"
_Byte = Annotated[int, msgspec.Meta(ge=-128, le=127)]
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True)
class Failure:
    """Why a group could not handle a record, and how often it tried."""

    group: str
    error: BaseException
    attempts: int


class Letter(msgspec.Struct, frozen=True):
    """A letter taken apart again. What nobody told is None: other systems' letters have no
    headers.

    `id` is the same for one record that fails in one group, however often it is redriven.
    `headers`, `key` and `value` are the failed record's own. `timestamp` is in milliseconds since
    the epoch."""

    id: str
    value: bytes | None
    key: bytes | None
    headers: Headers
    event_id: str | None = None
    correlation_id: str | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    timestamp: int | None = None
    group: str | None = None
    exception: str | None = None
    message: str | None = None
    stacktrace: str | None = None
    attempts: int | None = None


class Unwrapped(msgspec.Struct, frozen=True):
    """The value of a record of a dead-letter topic. `is_letter`: it was an envelope around another
    record's value; else it is what came."""

    value: bytes | None
    is_letter: bool


class DeadLetterCodec:
    """Reads any value, so that nothing can fail where failures are kept."""

    event_type: Any = Unwrapped
    fixed_headers: Headers = []  # noqa: RUF012 - never written to
    carries_correlation_id = True

    def encode(self, event: Unwrapped, correlation_id: str) -> bytes:
        raise WireError("dead letters are made by groups, of records that they cannot handle")

    def decode(self, value: bytes | None) -> tuple[Unwrapped, str | None]:
        if value is not None:
            try:
                envelope = _letter.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return Unwrapped(value, is_letter=False), None
            payload = envelope.payload
            id_ = envelope.correlationId.id if envelope.correlationId else None
            if isinstance(payload, str) and envelope.type == _TEXT:
                return Unwrapped(payload.encode(), is_letter=True), id_
            if isinstance(payload, list) and envelope.type == _BYTES:
                return Unwrapped(array("b", payload).tobytes(), is_letter=True), id_
        return Unwrapped(value, is_letter=False), None


class _Correlation(msgspec.Struct):
    id: str | None = None


class _Envelope(msgspec.Struct):
    type: str
    payload: str | list[_Byte]
    correlationId: _Correlation | None = None


class _Correlated(msgspec.Struct):
    correlationId: _Correlation | None = None


_letter = msgspec.json.Decoder(_Envelope)
_correlated = msgspec.json.Decoder(_Correlated)


def dead_letter(raw: Any, failure: Failure, topic: str, largest: int = LARGEST) -> OutboundRecord:
    """The letter for `topic` of a record (confluent_kafka.Message) that failed. The same record
    always becomes the same event, so a crash in between makes no second letter.

    Raises DeadLetterTooLarge for one that the topic would not take."""
    headers: Headers = raw.headers() or []
    event_id, correlation_id = ids_of(raw)
    place = (raw.topic(), raw.partition(), raw.offset())
    event = derived_id(event_id, failure.group, topic, *place)
    hop = correlation.sent_to(correlation.through(correlation_id, TITLE), topic)
    value = raw.value()
    letter = OutboundRecord(
        topic,
        raw.key(),
        _encoder.encode(_wrapped(value) | {"correlationId": {"id": hop}}),
        [
            (EVENT_ID, event.encode()),
            *_own(headers),
            *_spring_headers(raw, failure),
            (ID, letter_id(raw, failure.group).encode()),
            (ITS_EVENT_ID, event_id.encode()),
            (ATTEMPTS, str(failure.attempts).encode()),
            *([(WAS_NULL, b"1")] if value is None else []),
        ],
    )
    size = len(letter.value or b"") + sum(len(n) + len(v or b"") for n, v in letter.headers)
    if size > largest:
        raise DeadLetterTooLarge(
            f"the letter of {place[0]}[{place[1]}] at {place[2]} has {size} bytes, and {topic} "
            f"takes {largest}: raise its max.message.bytes; nothing was skipped"
        )
    return letter


class DeadLetters:
    """Where a group's dead letters go. Without a topic there is no place for them, and the group
    stops in front of a record that it cannot handle. `template` is for groups without a store.
    Thread-safe."""

    def __init__(self, topic: str | None = None, template: KafkaTemplate | None = None) -> None:
        self.topic = topic
        self._template = template
        self._largest: int | None = None

    def measure(self, connection: Connection, timeout: float) -> None:
        """Ask once how much the topic takes: others may have made it. Raises KafkaError."""
        if self.topic is not None and self._largest is None:
            takes = largest_record(connection, self.topic, timeout)
            self._largest = LARGEST if takes is None else min(LARGEST, takes - OVERHEAD)
            if self._largest < LARGEST:
                log.warning(
                    "%s takes letters of %d bytes, so a group will stop in front of a record that "
                    "becomes a larger one; its max.message.bytes should be %d",
                    self.topic, self._largest, LARGEST_ON_TOPIC,
                )  # fmt: skip

    def letter(self, raw: Any, failure: Failure) -> OutboundRecord:
        """Raises DeadLetterTooLarge."""
        if self.topic is None:
            raise ValueError("there is no dead-letter topic")
        return dead_letter(raw, failure, self.topic, self._largest or LARGEST)

    def send(self, raw: Any, failure: Failure) -> None:
        """Returns when the broker has it. Raises SendFailed and DeadLetterTooLarge."""
        if self._template is None:
            raise ValueError("a group without a store needs a template for its dead letters")
        self._template.send_record(self.letter(raw, failure))


def letter_id(raw: Any, group: str) -> str:
    """The same for a record however often it fails in a group, also after it was redriven."""
    told = dict(raw.headers() or [])
    if told.get(REDRIVE_TO) == group.encode() and told.get(REDRIVE_OF):
        return _text(told, REDRIVE_OF) or ""
    return derived_id(ids_of(raw)[0], group, TITLE, raw.topic(), raw.partition(), raw.offset())


def ids_of(raw: Any) -> tuple[str, str]:
    """Event id and correlation id of a record whose value may be unreadable."""
    headers = raw.headers() or []
    try:
        found = _correlated.decode(raw.value() or b"").correlationId
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    event_id, correlation_id, *_ = received_ids(
        headers, found.id if found else None, raw.topic(), raw.partition(), raw.offset()
    )
    return event_id, correlation_id


def opened(message: Message[Unwrapped]) -> Letter:
    """A record of a dead-letter topic as the letter that it is."""
    told = dict(message.headers)
    unwrapped = message.event
    event_id = _text(told, ITS_EVENT_ID)
    attempts = told.get(ATTEMPTS)
    return Letter(
        id=_text(told, ID) or message.event_id,
        value=None if told.get(WAS_NULL) else unwrapped.value,
        key=message.raw_key,
        headers=[
            *([(EVENT_ID, event_id.encode())] if event_id else []),
            *_own(message.headers),
        ],
        event_id=event_id,
        correlation_id=message.correlation_id,
        topic=_text(told, SPRING + "original-topic"),
        partition=_number(told, SPRING + "original-partition"),
        offset=_number(told, SPRING + "original-offset"),
        timestamp=_number(told, SPRING + "original-timestamp"),
        group=_text(told, SPRING + "original-consumer-group"),
        exception=_text(told, SPRING + "exception-fqcn"),
        message=_text(told, SPRING + "exception-message"),
        stacktrace=_text(told, SPRING + "exception-stacktrace"),
        attempts=int(attempts) if attempts and attempts.isdigit() and len(attempts) < 10 else None,
    )


def redriven(letter: Letter, topic: str, group: str | None) -> OutboundRecord:
    """The failed record again, under its event id, for `group` alone or, with None, for all."""
    headers = list(letter.headers)
    if group is not None:
        headers.append((REDRIVE_TO, group.encode()))
    return OutboundRecord(
        topic, letter.key, letter.value, [*headers, (REDRIVE_OF, letter.id.encode())]
    )


def _wrapped(value: bytes | None) -> dict[str, Any]:
    try:
        return {"type": _TEXT, "payload": (value or b"").decode("utf-8")}
    except UnicodeDecodeError:
        return {"type": _BYTES, "payload": array("b", value or b"").tolist()}


def _own(headers: Headers) -> Headers:
    """Without the event id, which a letter has one of its own for, and what failures added."""
    added = (SPRING, OURS, REDRIVE)
    return [(n, v) for n, v in headers if n != EVENT_ID and not n.startswith(added)]


def _spring_headers(raw: Any, failure: Failure) -> Headers:
    error = failure.error
    kind, timestamp = raw.timestamp()
    trace = "".join(traceback.format_exception(error))
    found = {
        "original-topic": raw.topic().encode(),
        "original-partition": raw.partition().to_bytes(4, "big", signed=True),
        "original-offset": raw.offset().to_bytes(8, "big", signed=True),
        "original-timestamp": timestamp.to_bytes(8, "big", signed=True),
        "original-timestamp-type": {1: b"CreateTime", 2: b"LogAppendTime"}.get(
            kind, b"NoTimestampType"
        ),
        "original-consumer-group": failure.group.encode(),
        "exception-fqcn": _kind(error),
        "exception-message": _cut(str(error), LONGEST_MESSAGE),
        "exception-stacktrace": _cut(trace, LONGEST_TRACE),
    }
    if error.__cause__ is not None:
        found["exception-cause-fqcn"] = _kind(error.__cause__)
    return [(SPRING + name, value) for name, value in found.items()]


def _kind(error: BaseException) -> bytes:
    return f"{type(error).__module__}.{type(error).__qualname__}".encode()


def _cut(text: str, longest: int) -> bytes:
    """Beginning and end, which of a stack trace tell most."""
    if len(text) > longest:
        head = longest // 3
        text = f"{text[:head]}\n…\n{text[head - longest + 3 :]}"
    return text.encode("utf-8", "replace")


def _text(told: Mapping[str, bytes | None], name: str) -> str | None:
    value = told.get(name)
    return value.decode("utf-8", "replace") if value else None


def _number(told: Mapping[str, bytes | None], name: str) -> int | None:
    value = told.get(name)
    return int.from_bytes(value, "big", signed=True) if value and len(value) <= 8 else None
