"""What is known of a span before there is one here: who sent it, and what it shares with others.

Of OpenTelemetry this needs the API alone: it is there also where nothing is traced."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.util.types import AttributeValue


class Remote(msgspec.Struct, frozen=True, gc=False):
    """A span of another process, or of another time: 16 and 8 bytes, as they are sent."""

    trace_id: bytes
    span_id: bytes
    flags: int
    state: trace.TraceState | None = None

    @property
    def sampled(self) -> bool:
        return bool(self.flags & trace.TraceFlags.SAMPLED)

    @property
    def context(self) -> trace.SpanContext:
        trace_id, span_id = int.from_bytes(self.trace_id), int.from_bytes(self.span_id)
        return trace.SpanContext(trace_id, span_id, True, trace.TraceFlags(self.flags), self.state)


Above: TypeAlias = Remote | trace.Span | None  # the parent of a span; a root has none


def around(above: Above) -> Context:
    """The context that a child of that span is made in."""
    if above is None:
        return Context()
    if isinstance(above, Remote):
        return trace.set_span_in_context(trace.NonRecordingSpan(above.context), Context())
    return trace.set_span_in_context(above)


class Shared(dict[str, AttributeValue]):
    """Attributes that many spans have. Not to be changed once a span has them; `written` is where
    an encoder keeps what it made of them."""

    __slots__ = ("written",)

    def __init__(self, attributes: Mapping[str, AttributeValue] = MappingProxyType({})) -> None:
        super().__init__(attributes)
        self.written: bytes | None = None


class Begin(Protocol):
    """Begins a span, below another one or as a root. `own`: attributes that are the span's from
    now on, none of which is in `shared`."""

    def __call__(
        self,
        name: str,
        above: Above,
        kind: trace.SpanKind,
        shared: Shared,
        own: dict[str, Any],
        *,
        links: Sequence[trace.Link] = (),
        start_time: int | None = None,
    ) -> trace.Span: ...
