"""Spans as OTLP in protobuf (opentelemetry/proto/trace/v1/trace.proto), written field by field.

The SDK's own encoder makes an object of protobuf for each attribute, 31 us per span; this joins
bytes, 7 us (docs/decisions/0017). `tests/unit/tracing/test_otlp.py` holds it against the SDK's.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

_TIMES = struct.Struct("<BQBQ").pack  # fixed64 start and end, each behind its tag
_EVENT_TIME = struct.Struct("<BQ").pack
_FLAGS = struct.Struct("<BBI").pack
_LINK_FLAGS = struct.Struct("<BI").pack
_DOUBLE = struct.Struct("<d").pack
_KINDS = {kind: bytes((0x30, kind.value + 1)) for kind in SpanKind}
_KNOWN, _REMOTE = 0x100, 0x200  # of flags: whether the parent is remote is known, and it is

LONGEST = 4096  # characters of a text; anybody may send records with keys of a megabyte

# Attributes whose values are few: what was written of them is kept.
_FEW_VALUES = {
    "messaging.system",
    "messaging.operation.name",
    "messaging.operation.type",
    "messaging.destination.name",
    "messaging.destination.partition.id",
    "messaging.consumer.group.name",
    "messaging.client.id",
    "listener.outcome",
}


class SpanExporter(OTLPSpanExporter):
    """Takes the standard variables (endpoint, headers, time-out, compression, certificates), and
    tries again, as the SDK's exporter does."""

    trouble: object = None  # why the last spans were not taken

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._shutdown:
            return SpanExportResult.FAILURE
        sent = self._client.export(encoded(spans))
        self.trouble = None if sent.success else sent.reason or sent.status_code or sent.error
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


def encoded(spans: Sequence[ReadableSpan]) -> bytes:
    """An ExportTraceServiceRequest. The spans are a process's own, so of one resource."""
    by_scope: dict[int, tuple[InstrumentationScope | None, list[bytes]]] = {}
    links_seen: dict[int, bytes] = {}  # all records of a poll are linked with the same
    for span in spans:
        scope = span.instrumentation_scope
        place = by_scope.get(id(scope))  # they are few, and live as long as their tracers
        if place is None:
            place = by_scope[id(scope)] = scope, []
        place[1].append(_message(b"\x12", _span(span, links_seen)))
    resource = b"".join(_attributes(b"\x0a", spans[0].resource.attributes)) if spans else b""
    parts = [_message(b"\x0a", resource)]
    for scope, found in by_scope.values():
        name = _message(b"\x0a", _text(b"\x0a", scope.name if scope else ""))
        parts += [b"\x12", _varint(len(name) + sum(map(len, found))), name, *found]
    return b"".join([b"\x0a", _varint(sum(map(len, parts))), *parts])


def _span(span: ReadableSpan, links_seen: dict[int, bytes]) -> bytes:
    context, parent, events, status = span.context, span.parent, span.events, span.status
    assert context is not None
    flags = context.trace_flags | _KNOWN
    parts = [_place(context)]
    if parent is not None:
        parts.append(b"\x22\x08" + parent.span_id.to_bytes(8, "big"))
        if parent.is_remote:
            flags |= _REMOTE
    parts += [
        _name(span.name),
        _KINDS[span.kind],
        _TIMES(0x39, span.start_time or 0, 0x41, span.end_time or 0),
        *_attributes(b"\x4a", span.attributes),
        _FLAGS(0x85, 0x01, flags),
    ]
    for link in span.links:
        written = links_seen.get(id(link))
        if written is None:
            written = links_seen[id(link)] = _message(b"\x6a", _link(link))
        parts.append(written)
    if events:
        parts += [_message(b"\x5a", _event(event)) for event in events]
    if status.status_code is not StatusCode.UNSET:
        parts.append(_status(status))
    return b"".join(parts)


def _place(context: SpanContext) -> bytes:
    trace_id, span_id, state = context.trace_id, context.span_id, context.trace_state
    place = b"\x0a\x10%b\x12\x08%b" % (trace_id.to_bytes(16, "big"), span_id.to_bytes(8, "big"))
    return place + _text(b"\x1a", state.to_header()) if state else place


def _link(link: Link) -> bytes:
    context, attributes = link.context, link.attributes
    flags = context.trace_flags | _KNOWN | (_REMOTE if context.is_remote else 0)
    more = b"".join(_attributes(b"\x22", attributes)) if attributes else b""
    return _place(context) + more + _LINK_FLAGS(0x35, flags)


def _event(event: Event) -> bytes:
    attributes = _attributes(b"\x1a", event.attributes)
    return b"".join([_EVENT_TIME(0x09, event.timestamp), _text(b"\x12", event.name), *attributes])


def _status(status: Status) -> bytes:
    code = bytes((0x18, status.status_code.value))
    return _message(b"\x7a", _text(b"\x12", status.description or "") + code)


def _attributes(tag: bytes, attributes: Mapping[str, Any] | None) -> Iterable[bytes]:
    if not attributes:
        return ()
    return [
        _attribute_of_few(tag, key, value) if key in _FEW_VALUES else _attribute(tag, key, value)
        for key, value in attributes.items()
    ]


def _attribute(tag: bytes, key: str, value: Any) -> bytes:
    name = _key(key)
    if type(value) is not str or len(value) + len(name) > _PLAIN:
        written = _value(value[:LONGEST] if isinstance(value, str) else value)
        return _message(tag, name + _message(b"\x12", written))
    text = value.encode("utf-8", "replace")  # as above, in one step
    length = _SHORT[len(text)]
    within = _SHORT[1 + len(length) + len(text)]
    whole = _SHORT[len(name) + 2 + len(within) + len(length) + len(text)]
    return b"%b%b%b\x12%b\x0a%b%b" % (tag, whole, name, within, length, text)


_attribute_of_few = lru_cache(maxsize=10_000)(_attribute)


@lru_cache(maxsize=1000)
def _name(name: str) -> bytes:
    return _text(b"\x2a", name)


@lru_cache(maxsize=1000)
def _key(key: str) -> bytes:
    return _text(b"\x0a", key)


def _value(value: Any) -> bytes:
    """An AnyValue; of what is none, its text."""
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, float):
        return b"\x21" + _DOUBLE(value)
    if isinstance(value, bytes):
        return _message(b"\x3a", value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _message(b"\x2a", b"".join([_message(b"\x0a", _value(item)) for item in value]))
    return _text(b"\x0a", str(value))


def _text(tag: bytes, text: str) -> bytes:
    return _message(tag, text.encode("utf-8", "replace"))


def _message(tag: bytes, content: bytes) -> bytes:
    """Also a text and bytes: whatever tells its length first."""
    length = len(content)
    return tag + (_SHORT[length] if length < 0x4000 else _varint(length)) + content


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the last byte is below 0x80."""
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


_SHORT = [_varint(length) for length in range(0x4000)]
_PLAIN = 3000  # characters, of at most four bytes each
