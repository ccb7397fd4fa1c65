"""Spans as OTLP in protobuf (opentelemetry/proto/trace/v1/trace.proto), written field by field.

The SDK's own encoder makes an object of protobuf for each attribute; this joins bytes, in a fifth
of the time (docs/decisions/0017). `tests/unit/tracing/test_otlp.py` holds it against the SDK's.
"""

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from shop.tracing.remote import Remote
from shop.tracing.spans import UNSET, Span

_TIMES = struct.Struct("<BQBQ").pack  # fixed64 start and end, each behind its tag
_EVENT_TIME = struct.Struct("<BQ").pack
_DOUBLE = struct.Struct("<d").pack
_KINDS = {kind.value: bytes((0x30, kind.value + 1)) for kind in SpanKind}
_KNOWN, _REMOTE = 0x100, 0x200  # of flags: whether a parent or link is remote is known, and it is
_OWN_FLAGS = struct.pack("<BBI", 0x85, 0x01, TraceFlags.SAMPLED | _KNOWN)
_FLAGS_BELOW_REMOTE = struct.pack("<BBI", 0x85, 0x01, TraceFlags.SAMPLED | _KNOWN | _REMOTE)
_FLAGS_OF_REMOTES = [struct.pack("<BI", 0x35, _KNOWN | _REMOTE | flags) for flags in range(0x100)]

LONGEST = 4096  # characters of a text; anybody may send records with keys of a megabyte

Written: TypeAlias = Mapping[str, bytes | bytearray]  # spans as OTLP, by the name of their scope


class Collector:
    """Where the standard variables say (endpoint, headers, time-out, compression, certificates), by
    the client of the SDK's exporter, which tries again. Spans are of one resource."""

    def __init__(self, resource: Resource) -> None:
        self._exporter = OTLPSpanExporter()
        self._resource = resource
        self._ended = False

    def take(self, written: Written) -> object:
        """None when it took them, or why not."""
        if self._ended:
            return "the process ends"
        sent = self._exporter._client.export(request(self._resource, written))
        return None if sent.success else sent.reason or sent.status_code or sent.error or "unknown"

    def shutdown(self) -> None:
        self._ended = True
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def encoded(span: Span) -> tuple[str, bytes]:
    """The name of its scope, and the span as it stands in a request."""
    return span._tracer.scope.name, _message(b"\x12", _span(span))


def request(resource: Resource, written: Written) -> bytes:
    """An ExportTraceServiceRequest."""
    of = _message(b"\x0a", b"".join(_attributes(b"\x0a", resource.attributes)))
    parts: list[bytes | bytearray] = [of]
    for scope, spans in written.items():
        name = _message(b"\x0a", _text(b"\x0a", scope))
        parts += [b"\x12", _varint(len(name) + len(spans)), name, spans]
    return b"".join([b"\x0a", _varint(sum(map(len, parts))), *parts])


def _span(span: Span) -> bytes:
    """Of its fields: the properties of a ReadableSpan cost a call each."""
    above, shared = span.above, span.shared
    place = b"\x0a\x10" + span.trace_id + b"\x12\x08" + span.span_id
    if span.state:
        place += _text(b"\x1a", span.state.to_header())
    flags = _OWN_FLAGS
    if type(above) is Remote:
        place += b"\x22\x08" + above.span_id
        flags = _FLAGS_BELOW_REMOTE
    elif isinstance(above, SpanContext):
        place += b"\x22\x08" + above.span_id.to_bytes(8)
        if above.is_remote:
            flags = _FLAGS_BELOW_REMOTE
    elif above is not None:
        place += b"\x22\x08" + above.span_id
    if shared.written is None:
        shared.written = b"".join(_attributes(b"\x4a", shared))
    parts = [
        place,
        _name(span._name),
        _KINDS[span._kind._value_],
        _TIMES(0x39, span._start_time, 0x41, span._end_time or 0),
        shared.written,
        *_attributes(b"\x4a", span.own),
        flags,
    ]
    for link in span.linked:
        parts.append(_link_with(link) if type(link) is Remote else _link(link))
    if span._events:
        parts += [_message(b"\x5a", _event(event)) for event in span._events]
    if span._status is not UNSET and span._status.status_code is not StatusCode.UNSET:
        parts.append(_status(span._status))
    return b"".join(parts)


def _link_with(remote: Remote) -> bytes:
    if remote.state:
        return _link(Link(remote.context))
    ids = b"\x6a\x21\x0a\x10" + remote.trace_id + b"\x12\x08" + remote.span_id
    return ids + _FLAGS_OF_REMOTES[remote.flags & 0xFF]


@lru_cache(maxsize=100)  # links are told apart by identity; all records of a poll have the same
def _link(link: Link) -> bytes:
    context, attributes = link.context, link.attributes
    flags = context.trace_flags | (_KNOWN | _REMOTE if context.is_remote else _KNOWN)
    place = b"\x0a\x10%b\x12\x08%b" % (context.trace_id.to_bytes(16), context.span_id.to_bytes(8))
    state = _text(b"\x1a", context.trace_state.to_header()) if context.trace_state else b""
    more = b"".join(_attributes(b"\x22", attributes))
    return _message(b"\x6a", b"%b%b%b\x35%b" % (place, state, more, flags.to_bytes(4, "little")))


def _event(event: Event) -> bytes:
    attributes = _attributes(b"\x1a", event.attributes)
    return b"".join([_EVENT_TIME(0x09, event.timestamp), _text(b"\x12", event.name), *attributes])


def _status(status: Status) -> bytes:
    code = bytes((0x18, status.status_code.value))
    return _message(b"\x7a", _text(b"\x12", status.description or "") + code)


def _attributes(tag: bytes, attributes: Mapping[str, Any] | None) -> list[bytes]:
    parts: list[bytes] = []
    if attributes:
        for key, value in attributes.items():
            if type(value) is str:
                text = _utf8(value)
                parts += _before_text(tag, key, len(text)), text
            else:
                other = _value(value)
                parts += _before(tag, key, len(other)), other
    return parts


def _utf8(text: str) -> bytes:
    """What an attribute has of a text. The errors' handler costs even where there are none."""
    if len(text) > LONGEST:
        text = text[:LONGEST]
    try:
        return text.encode()
    except UnicodeEncodeError:  # lone surrogates
        return text.encode("utf-8", "replace")


@lru_cache(maxsize=10_000)
def _before_text(tag: bytes, key: str, length: int) -> bytes:
    """Of an attribute, all that comes before a text of that length."""
    before = b"\x0a" + _varint(length)
    return _before(tag, key, len(before) + length) + before


@lru_cache(maxsize=10_000)
def _before(tag: bytes, key: str, length: int) -> bytes:
    """Of an attribute, all that comes before an AnyValue of that length."""
    before = _key(key) + b"\x12" + _varint(length)
    return tag + _varint(len(before) + length) + before


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
    return _message(b"\x0a", _utf8(str(value)))


def _text(tag: bytes, text: str) -> bytes:
    return _message(tag, text.encode("utf-8", "replace"))


def _message(tag: bytes, content: bytes) -> bytes:
    """Also a text and bytes: whatever tells its length first."""
    return tag + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the last byte is below 0x80."""
    if number < 0x4000:
        return _LAST[number]
    return _LOW[number & 0x3FFF] + _varint(number >> 14)


_LOW = [bytes((low | 0x80, high | 0x80)) for high in range(0x80) for low in range(0x80)]
_LAST = [bytes((n,)) for n in range(0x80)] + [
    bytes((low | 0x80, high)) for high in range(1, 0x80) for low in range(0x80)
]
