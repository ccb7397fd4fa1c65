"""Dead letters as they are written: a record that a group could not handle, with all that brings
it back as it was.

None of the headers grows when a letter is redriven and fails again: what was added is taken off
before.
"""

import logging
import traceback
from array import array
from dataclasses import dataclass
from typing import Any

import msgspec

from shop.kafka import correlation, tracing
from shop.kafka.admin import largest_record
from shop.kafka.connection import Connection
from shop.kafka.errors import DeadLetterTooLarge
from shop.kafka.ids import derived_id
from shop.kafka.letter import (
    ATTEMPTS,
    BYTES,
    ID,
    REDRIVE_OF,
    SPRING,
    TEXT,
    TITLE,
    WAS_NULL,
    Correlation,
    own_headers,
    packed,
    with_event_id,
)
from shop.kafka.outbound import OutboundRecord
from shop.kafka.template import KafkaTemplate
from shop.kafka.wire import EVENT_ID, REDRIVE_TO, Headers, received_ids

log = logging.getLogger(__name__)

LARGEST = 8 * 1024 * 1024  # bytes of a letter; what was 1 MB may be 6 MB as JSON
OVERHEAD = 65_536  # of what Kafka adds
LARGEST_ON_TOPIC = LARGEST + OVERHEAD  # max.message.bytes
LONGEST_MESSAGE = 1_000  # characters, also of other texts in headers
LONGEST_TRACE = 8_000

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True)
class Failure:
    """Why a group could not handle a record, and how often it tried."""

    group: str
    error: BaseException
    attempts: int


class _Correlated(msgspec.Struct):
    correlationId: Correlation | None = None


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
    told = [
        (EVENT_ID, event.encode()),
        *packed(with_event_id(event_id, own_headers(headers))),
        *_spring_headers(raw, failure),
        (ID, letter_id(raw, failure.group).encode()),
        (ATTEMPTS, str(failure.attempts).encode()),
        *([(WAS_NULL, b"1")] if value is None else []),
    ]
    sender = tracing.traceparent_of(headers)
    why = {"error.type": type(failure.error).__qualname__}
    with tracing.send(topic, None, hop, sender, told, into=tracing.AS_LETTER, attributes=why):
        body = _encoder.encode(_wrapped(value) | {"correlationId": {"id": hop}})
    letter = OutboundRecord(topic, raw.key(), body, told)
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
    redriven: bytes | None = told.get(REDRIVE_OF)
    if redriven and told.get(REDRIVE_TO) == group.encode():
        return redriven.decode("utf-8", "replace")
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


def _wrapped(value: bytes | None) -> dict[str, Any]:
    try:
        return {"type": TEXT, "payload": (value or b"").decode("utf-8")}
    except UnicodeDecodeError:
        return {"type": BYTES, "payload": array("b", value or b"").tolist()}


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
