"""Spans by OpenTelemetry's messaging conventions (semconv v1.44), made only where somebody samples.

The sampled flag of a traceparent is read by hand: for a record that is not sampled this costs a
few hundred nanoseconds instead of two spans. The decision is the root's. Traceparents are read and
written by hand too, at a fifth of what the SDK's propagator costs.
"""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context

from shop.kafka.wire import EVENT_ID, TRACEPARENT, TRACESTATE, Headers

# Of letters and redriven records, which keep the traceparent that their record was first sent with.
AS_LETTER, REDRIVEN = "dead-letter-traceparent", "redrive-traceparent"
_OF_SENDERS = {TRACEPARENT, TRACESTATE, AS_LETTER, REDRIVEN}  # no record has both of the last

_TRACEPARENT = re.compile(
    r"\A(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-|\Z)"
)
_NOTHING: AbstractContextManager[None] = nullcontext()

tracer = trace.get_tracer("shop.kafka")


def sampled(traceparent: str | None) -> bool:
    """Whether a W3C traceparent has the sampled flag (the last bit of its last field)."""
    if not traceparent or len(traceparent) < 55:
        return False
    try:
        return bool(int(traceparent[53:55], 16) & 1)
    except ValueError:
        return False


def recorded(traceparent: str | None) -> bool:
    """Whether spans are to be made of a record: it is sampled, and this process traces."""
    return sampled(traceparent) and not isinstance(
        trace.get_tracer_provider(), trace.ProxyTracerProvider
    )


def traceparent_to(context: trace.SpanContext) -> str:
    """What tells a receiver of this span."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def current_traceparent() -> str | None:
    """The traceparent of the span that is current in this thread, if there is one."""
    context = trace.get_current_span().get_span_context()
    return traceparent_to(context) if context.is_valid else None


def here_or_sender(headers: Headers) -> str | None:
    """The traceparent of the current span; where nothing is traced in this process, of the span
    that sent the record, if that is sampled."""
    sender = traceparent_of(headers)
    return current_traceparent() or (sender if sampled(sender) else None)


def span_of(traceparent: str | None, tracestate: str | None = None) -> trace.SpanContext | None:
    """The span that a traceparent tells of; None where it is none."""
    found = _TRACEPARENT.match(traceparent or "")
    if found is None:
        return None
    state = trace.TraceState.from_header([tracestate]) if tracestate else None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    return trace.SpanContext(trace_id, span_id, True, trace.TraceFlags(flags), state)


def below(span: trace.SpanContext | None) -> Context:
    """Where a child of that span is to be made; without one, where a root is."""
    if span is None:
        return Context()
    return trace.set_span_in_context(trace.NonRecordingSpan(span), Context())


def sender_of(headers: Headers) -> trace.SpanContext | None:
    """The span that sent a record; as a letter, or redriven, where it is one."""
    found = {name: value for name, value in headers if name in _OF_SENDERS}
    state = found.get(TRACESTATE)
    return span_of(_latest(found), state.decode("ascii", "replace") if state else None)


def traceparent_of(headers: Headers) -> str | None:
    """Of the last send of a record: as a letter, redriven, or the first."""
    return _latest({name: value for name, value in headers if name in _OF_SENDERS})


def _latest(headers: Mapping[str, bytes | None]) -> str | None:
    value = headers.get(AS_LETTER) or headers.get(REDRIVEN) or headers.get(TRACEPARENT)
    return value.decode("ascii", "replace") if value else None


def link(traceparent: str | None) -> list[trace.Link]:
    """A link to the span of a traceparent that is sampled."""
    span = span_of(traceparent)
    return [trace.Link(span)] if span is not None and span.trace_flags.sampled else []


def send(
    topic: str,
    key: str | None,
    correlation_id: str,
    traceparent: str | None,
    headers: Headers,
    *,
    into: str = TRACEPARENT,
    links: list[trace.Link] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> AbstractContextManager[Any]:
    """The span `send TOPIC`, and its context put into `headers` for the receiver, as header `into`.

    The parent is the current span, or else `traceparent`, which is passed on as it is when it is
    not sampled, or nothing is traced in this process."""
    parent: Context | None = None  # the current one
    if not trace.get_current_span().is_recording():
        if not traceparent:
            return _NOTHING
        if not recorded(traceparent):
            if into == TRACEPARENT or sampled(traceparent):
                headers.append((into, traceparent.encode("ascii", "replace")))
            return _NOTHING
        parent = below(span_of(traceparent))
    told: dict[str, Any] = {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
        "messaging.message.conversation_id": correlation_id,
    }
    if key is not None:
        told["messaging.kafka.message.key"] = key
    for name, value in headers:
        if name == EVENT_ID:
            told["messaging.message.id"] = value.decode("utf-8", "replace")
    if attributes:
        told |= attributes
    span = tracer.start_span(f"send {topic}", parent, trace.SpanKind.PRODUCER, told, links)
    context = span.get_span_context()
    headers.append((into, traceparent_to(context).encode()))
    if context.trace_state and into == TRACEPARENT:
        headers.append((TRACESTATE, context.trace_state.to_header().encode()))
    return _Sending(span)


class _Sending:
    """Until the block's end, which is the send's."""

    __slots__ = ("_span",)

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        """The span is not made current: nothing is made below it."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception):
            failed(self._span, error)
        self._span.end()


def failed(span: trace.Span, error: Exception) -> None:
    """Say so of a span."""
    span.set_attribute("error.type", type(error).__qualname__)
    span.record_exception(error)
    span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}"[:500])
