"""How an event becomes the bytes of a record and comes back.

The envelope is `{"type": T, "payload": P, "correlationId": {"id": C}}`. T is looked up in the
accept-list of the topic's codec and never imported. What receivers of the envelope do not read
travels in record headers: the event id, which stays the same on every redelivery, and the W3C
trace context.
"""

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, Union

import msgspec

from shop.kafka.correlation import MAX_LENGTH, bounded
from shop.kafka.errors import WireError
from shop.kafka.ids import derived_id

EVENT_ID = "event-id"
LONGEST_ID = 300  # characters of an event id or a traceparent
CORRELATION_ID = "correlation-id"  # of values that have no place for it
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
REDRIVE_TO = "redrive-to"  # the group that a redriven record is for; others pass over it

Headers: TypeAlias = list[tuple[str, bytes]]  # of other systems' records some are None

E = TypeVar("E")
E_co = TypeVar("E_co")


class Codec(Protocol[E]):
    """Bytes of a record value <-> event. Stateless, so shared by all threads."""

    event_type: Any
    fixed_headers: Headers
    carries_correlation_id: bool  # in the value; else it travels in a header

    def encode(self, event: E, correlation_id: str) -> bytes:
        """Raises WireError when the event is not of this codec's type."""

    def decode(self, value: bytes | None) -> tuple[E, str | None]:
        """The event and its correlation id, if it carries one. Raises WireError."""


class Message(msgspec.Struct, Generic[E_co], frozen=True, gc=False):
    """A record as a listener sees it: the event, and where it came from.

    `timestamp` is in milliseconds since the epoch, -1 where the record has none. `key` is the text
    of `raw_key`, bytes that are not UTF-8 escaped.
    """

    event: E_co
    key: str | None
    topic: str
    partition: int
    offset: int
    timestamp: int
    event_id: str
    correlation_id: str
    traceparent: str | None
    headers: Headers
    raw_key: bytes | None = None

    def header(self, name: str) -> bytes | None:
        """The last value of a header, as Kafka's own clients read one."""
        return next((value for key, value in reversed(self.headers) if key == name), None)


class _Correlation(msgspec.Struct):
    id: str | None = None


class _Typed(msgspec.Struct):
    type: str


class EnvelopeCodec(Generic[E]):
    """The envelope with a payload of one of `types`, a mapping of wire type to Python type.

    Numbers become Decimal where the event says so, every digit kept, and are written as numbers.
    """

    carries_correlation_id = True

    def __init__(self, types: Mapping[str, Any]) -> None:
        if not types:
            raise ValueError("an envelope needs at least one type")
        self.fixed_headers: Headers = []
        self._types = dict(types)
        self.event_type: Any = Union[tuple(self._types.values())]  # noqa: UP007
        envelope = msgspec.defstruct(
            "Envelope",
            [
                ("type", str),
                ("payload", self.event_type),
                ("correlationId", _Correlation | None, None),
            ],
        )
        self._envelope: Any = envelope
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(envelope)
        self._encoder = msgspec.json.Encoder(decimal_format="number")
        self._wire_type = {python: wire for wire, python in self._types.items()}

    def encode(self, event: E, correlation_id: str) -> bytes:
        wire_type = self._wire_type.get(type(event))
        if wire_type is None:
            names = ", ".join(t.__name__ for t in self._wire_type)
            raise WireError(f"a {type(event).__name__} cannot be sent here; it takes {names}")
        try:
            return self._encoder.encode(
                self._envelope(wire_type, event, _Correlation(correlation_id))
            )
        except (UnicodeEncodeError, TypeError, ValueError) as error:
            raise WireError(
                f"the {type(event).__name__} cannot be written as JSON: {error}"
            ) from None

    def decode(self, value: bytes | None) -> tuple[E, str | None]:
        if value is None:
            raise WireError("the value is null; an envelope was expected")
        try:
            envelope = self._decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(self._explain(value, error)) from None
        accepted = self._types.get(envelope.type)
        if accepted is None or not isinstance(envelope.payload, accepted):
            raise WireError(self._explain(value, "its payload is of another type"))
        correlation = envelope.correlationId
        payload: E = envelope.payload
        return payload, correlation.id if correlation else None

    def _explain(self, value: bytes, error: object) -> str:
        try:
            wire_type = msgspec.json.decode(value, type=_Typed).type
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return f"not an envelope: {error}"
        if wire_type not in self._types:
            return f"type {wire_type[:100]!r} is not one of {', '.join(sorted(self._types))}"
        return f"a {wire_type} that cannot be read: {error}"


def redriven_to(headers: Headers) -> str | None:
    """The group that a record is for where it is for one alone."""
    for name, value in headers:
        if name == REDRIVE_TO and value:
            return value.decode("utf-8", "replace")
    return None


def received_ids(
    headers: Headers, correlation_id: str | None, topic: str, partition: int, offset: int
) -> tuple[str, str, str | None, str | None]:
    """Event id, correlation id, traceparent, and the group it is for where it is for one alone.

    One without our headers gets an event id derived from its correlation id, so that every copy
    and every reader gets the same; one without a correlation id is named by where it lies."""
    event_id = traceparent = redrive_to = None
    for name, value in headers:
        if not value:
            continue
        if name == EVENT_ID:
            event_id = value.decode("utf-8", "replace")
            if len(event_id) > LONGEST_ID or "\0" in event_id:  # databases do not take any text
                event_id = derived_id("", event_id)
        elif name == TRACEPARENT and len(value) <= LONGEST_ID:
            traceparent = value.decode("ascii", "replace").replace("\0", "")
        elif name == CORRELATION_ID and correlation_id is None:
            correlation_id = value.decode("utf-8", "replace")
        elif name == REDRIVE_TO:
            redrive_to = value.decode("utf-8", "replace")
    if correlation_id is not None and (len(correlation_id) > MAX_LENGTH or "\0" in correlation_id):
        correlation_id = bounded(correlation_id.replace("\0", ""))
    if event_id is None:
        event_id = derived_id(correlation_id or f"{partition}-{offset}", topic)
    correlation_id = correlation_id or f"{topic}({partition}-{offset})"
    return event_id, correlation_id, traceparent, redrive_to
