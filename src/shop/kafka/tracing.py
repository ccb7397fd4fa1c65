"""Spans by OpenTelemetry's messaging conventions (semconv v1.44), made only where somebody samples.

The sampled flag of a traceparent is read by hand: for a record that is not sampled this costs a
few hundred nanoseconds instead of two spans. The decision is the root's. Traceparents are read and
written by hand too, at a fifth of what the SDK's propagator costs.
"""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

from opentelemetry import trace

from shop.kafka.wire import EVENT_ID, TRACEPARENT, TRACESTATE, Headers, Message
from shop.tracing.begin import begin_here, within
from shop.tracing.remote import Above, Remote, Shared

SCOPE = "shop.kafka"  # of the spans

# Of letters and redriven records, which keep the traceparent that their record was first sent with.
AS_LETTER, REDRIVEN = "dead-letter-traceparent", "redrive-traceparent"
_RARE_OF_SENDERS = {TRACESTATE, AS_LETTER, REDRIVEN}  # no record has both of the last
_OF_SENDERS = {TRACEPARENT, *_RARE_OF_SENDERS}

_TRACEPARENT = re.compile(  # later versions may have more fields
    r"\A(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
    r"(?:\Z|(?<!\A00.{53})-)"
)
_UNTRACED = trace.ProxyTracerProvider  # stands where a process has set up none
_NOTHING: AbstractContextManager[None] = nullcontext()


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
    flags = traceparent[53:55] if traceparent else "00"
    if flags == "00" or (flags != "01" and not sampled(traceparent)):
        return False
    return type(trace.get_tracer_provider()) is not _UNTRACED


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


def span_of(traceparent: str | None, tracestate: str | None = None) -> Remote | None:
    """The span that a traceparent tells of; None where it is none."""
    found = _TRACEPARENT.match(traceparent or "")
    if found is None:
        return None
    state = trace.TraceState.from_header([tracestate]) if tracestate else None
    trace_id, span_id, flags = found.groups()
    number = 1 if flags == "01" else int(flags, 16)
    return Remote(bytes.fromhex(trace_id), bytes.fromhex(span_id), number, state)


def sender_of_message(message: Message[Any]) -> Remote | None:
    """As `sender_of`; of most messages their traceparent tells all."""
    if _RARE_OF_SENDERS.isdisjoint([name for name, _ in message.headers]):
        return span_of(message.traceparent)
    return sender_of(message.headers)


def sender_of(headers: Headers) -> Remote | None:
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
    return [trace.Link(span.context)] if span is not None and span.sampled else []


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
    not sampled, or nothing is traced in this process. `attributes`: others than a send has."""
    current = trace.get_current_span()
    above: Above = current
    if not current.is_recording():
        if not traceparent:
            return _NOTHING
        if not recorded(traceparent):
            if into == TRACEPARENT or sampled(traceparent):
                headers.append((into, traceparent.encode("ascii", "replace")))
            return _NOTHING
        above = span_of(traceparent)
    told: dict[str, Any] = {"messaging.message.conversation_id": correlation_id}
    if key is not None:
        told["messaging.kafka.message.key"] = key
    for name, value in headers:
        if name == EVENT_ID:
            told["messaging.message.id"] = value.decode("utf-8", "replace")
    if attributes:
        told |= attributes
    kind, shared = trace.SpanKind.PRODUCER, _of_sends(topic)
    span = begin_here(SCOPE)(f"send {topic}", above, kind, shared, told, links=links or ())
    context = span.get_span_context()
    headers.append((into, traceparent_to(context).encode()))
    if context.trace_state and into == TRACEPARENT:
        headers.append((TRACESTATE, context.trace_state.to_header().encode()))
    return within(span)


@lru_cache(maxsize=1000)
def _of_sends(topic: str) -> Shared:
    return Shared(
        {
            "messaging.system": "kafka",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": topic,
        }
    )
