"""A record of any topic made readable: as an envelope, else as JSON, text or bytes."""

import base64
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from shop.kafka.browse import RawRecord
from shop.kafka.errors import WireError
from shop.kafka.topic import Topic
from shop.kafka.wire import CORRELATION_ID, EVENT_ID, TRACEPARENT
from shop.printable import printable

_LONG = 300  # characters of a value that is not JSON, on the terminal


class _Correlation(msgspec.Struct):
    id: str | None = None


class _Envelope(msgspec.Struct, rename="camel"):
    type: str
    payload: msgspec.Raw
    correlation_id: _Correlation | None = None


@dataclass(frozen=True)
class Readable:
    """`payload` is JSON as it was sent, every digit kept; None where the value is null, or not
    JSON. `problem` says why the value is not what its topic carries."""

    topic: str
    record: RawRecord
    type: str | None
    payload: bytes | None
    correlation_id: str | None
    problem: str | None

    def line(self) -> str:
        """For a person: one line, whatever the record holds."""
        record = self.record
        parts = [
            f"[{record.partition}]@{record.offset}",
            _moment(record.timestamp) or "(no time)",
            "(no key)" if record.key is None else printable(record.key),
            self.type,
            self._value(),
            self.correlation_id,
        ]
        return "  ".join(printable(part) for part in parts if part is not None)

    def json(self) -> str:
        """One object, on one line. Bytes that are not text are {"base64": …}."""
        record = self.record
        headers = dict(record.headers)
        shown: dict[str, Any] = {
            "topic": self.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": _moment(record.timestamp),
            "key": _text(record.key),
            "type": self.type,
            "payload": None if self.payload is None else msgspec.Raw(self.payload),
            "correlationId": self.correlation_id,
            "eventId": _text(headers.get(EVENT_ID)),
            "traceparent": _text(headers.get(TRACEPARENT)),
            "headers": [{"name": name, "value": _text(value)} for name, value in record.headers],
        }
        if self.payload is None:
            shown["value"] = _text(record.value)
        if self.problem is not None:
            shown["problem"] = self.problem
        return msgspec.json.encode(shown).decode()

    def mentions(self, correlation_id: str) -> bool:
        """Whether its correlation id has that in it; for a value that shows none, its bytes."""
        if self.correlation_id is not None:
            return correlation_id in self.correlation_id
        return correlation_id.encode("utf-8", "replace") in (self.record.value or b"")

    def _value(self) -> str:
        value = self.record.value
        mark = f"(undecodable: {self.problem}) " if self.problem else ""
        if value is None:
            return f"{mark}(null)"
        if self.payload is not None:
            return mark + self.payload.decode()
        text = printable(value)
        return mark + (text if len(text) <= _LONG else f"{text[:_LONG]}… ({len(value)} bytes)")


def readable(record: RawRecord, topic: str, known: Topic[Any] | None) -> Readable:
    """Never raises. `known` is the topic as the shop declares it, None of another."""
    payload = _json(record.value)
    type_ = problem = None
    headers = dict(record.headers)
    correlation_id = (headers.get(CORRELATION_ID) or b"").decode("utf-8", "replace") or None
    if payload and (known is None or known.codec.carries_correlation_id):
        envelope = _envelope(payload)
        if envelope is not None:
            type_, payload = envelope.type, bytes(envelope.payload)
            if envelope.correlation_id is not None:
                correlation_id = envelope.correlation_id.id
    if known is not None:
        try:
            known.codec.decode(record.value)
        except WireError as error:
            problem = str(error)
    return Readable(topic, record, type_, payload, correlation_id, problem)


def _json(value: bytes | None) -> bytes | None:
    """The value without white space between its parts, if it is JSON."""
    try:
        (value or b"").decode()  # which the JSON library checks only where it makes strings
        msgspec.json.decode(value or b"", type=msgspec.Raw)
        return msgspec.json.format(value or b"", indent=-1)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _envelope(value: bytes) -> _Envelope | None:
    try:
        return msgspec.json.decode(value, type=_Envelope)
    except (msgspec.DecodeError, RecursionError):
        return None


def _text(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _moment(timestamp: int) -> str | None:
    """Local time with its zone, of milliseconds since the epoch; None for no time."""
    if timestamp < 0:
        return None
    try:
        moment = datetime.fromtimestamp(timestamp / 1000).astimezone()
    except (ValueError, OverflowError, OSError):  # a year that no calendar has
        return str(timestamp)
    return moment.isoformat(timespec="milliseconds")
