"""A dead letter as it is read: the failed record again, as it was, and what is told of it.

Its value is an envelope that readers of `java.lang.String` or `[B` (signed bytes) understand. The
headers are the record's own, Spring's `kafka_dlt-…` for where it was and what went wrong, and
`dead-letter-…` for what those have no name for.
"""

from array import array
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from shop.kafka.errors import WireError
from shop.kafka.outbound import OutboundRecord
from shop.kafka.wire import EVENT_ID, REDRIVE_TO, Headers, Message, received_ids

TITLE = "DeadLetter"
SPRING, OURS, REDRIVE = "kafka_dlt-", "dead-letter-", "redrive-"
ID = OURS + "id"
ITS_EVENT_ID = OURS + "event-id"
ATTEMPTS = OURS + "attempts"
WAS_NULL = OURS + "value-was-null"
REDRIVE_OF = REDRIVE + "of"  # the id of the letter that it was

TEXT, BYTES = "java.lang.String", "[B"  # types of the envelope
_Byte = Annotated[int, msgspec.Meta(ge=-128, le=127)]


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
            if isinstance(payload, str) and envelope.type == TEXT:
                return Unwrapped(payload.encode(), is_letter=True), id_
            if isinstance(payload, list) and envelope.type == BYTES:
                return Unwrapped(array("b", payload).tobytes(), is_letter=True), id_
        return Unwrapped(value, is_letter=False), None


class Correlation(msgspec.Struct):
    id: str | None = None


class _Envelope(msgspec.Struct):
    type: str
    payload: str | list[_Byte]
    correlationId: Correlation | None = None


_letter = msgspec.json.Decoder(_Envelope)


def opened(message: Message[Unwrapped]) -> Letter:
    """A record of a dead-letter topic as the letter that it is."""
    told = dict(message.headers)
    unwrapped = message.event
    headers = unpacked(message.headers)
    attempts = told.get(ATTEMPTS)
    return Letter(
        id=_text(told, ID) or message.event_id,
        value=None if told.get(WAS_NULL) else unwrapped.value,
        key=message.raw_key,
        headers=headers,
        event_id=received_ids(headers, None, "", 0, 0)[0] if tells_event_id(headers) else None,
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


def own_headers(headers: Headers) -> Headers:
    """Without what failures added."""
    return [(n, v) for n, v in headers if not n.startswith((SPRING, OURS, REDRIVE))]


def with_event_id(event_id: str, headers: Headers) -> Headers:
    """`event_id`: what readers know a record by whose headers tell none."""
    return headers if tells_event_id(headers) else [(EVENT_ID, event_id.encode()), *headers]


def tells_event_id(headers: Headers) -> bool:
    return any(name == EVENT_ID and value for name, value in headers)


def packed(headers: Headers) -> Headers:
    """A record's headers in its letter, which has an event id of its own."""
    return [(ITS_EVENT_ID if name == EVENT_ID else name, value) for name, value in headers]


def unpacked(headers: Headers) -> Headers:
    """The record's headers again, as they were."""
    within = [(name, value) for name, value in headers if name != EVENT_ID]
    return own_headers([(EVENT_ID if n == ITS_EVENT_ID else n, v) for n, v in within])


def _text(told: Mapping[str, bytes | None], name: str) -> str | None:
    value = told.get(name)
    return value.decode("utf-8", "replace") if value else None


def _number(told: Mapping[str, bytes | None], name: str) -> int | None:
    value = told.get(name)
    return int.from_bytes(value, "big", signed=True) if value and len(value) <= 8 else None
