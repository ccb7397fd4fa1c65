"""Spans that cost a fifth of the SDK's, for what is done with each record.

The SDK checks and copies each attribute under a lock. These take what they are given: attributes as
OpenTelemetry wants them, by one thread at a time. Attributes that many spans share are kept once,
and what only a processor of spans may ask for is made when it does. Samplers and processors are the
SDK's, and see of these spans what they see of its own.
"""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from random import getrandbits
from types import TracebackType
from typing import Protocol

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.util.types import AttributeValue

from shop.tracing.remote import Remote, Shared

Attributes = Mapping[str, AttributeValue] | None

STACK = 4000  # characters of a stack trace; its end says most

_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)
_NOT_SAMPLED = trace.TraceFlags.get_default()
UNSET = trace.Status()
_NONE_SHARED = Shared()


class Maker(Protocol):
    """Of whom a span is: a tracer."""

    resource: Resource
    scope: InstrumentationScope

    @property
    def processor(self) -> "Processor": ...


class Processor(Protocol):
    @property
    def hear_end(self) -> Callable[[ReadableSpan], None]: ...


class Span(ReadableSpan, trace.Span):
    """A recorded span. What is said of it after its end is passed over."""

    # What ReadableSpan has; its own __init__ would cost twice as much.
    _events: Sequence[Event] = ()
    _status = UNSET
    _end_time: int | None = None
    _instrumentation_info = None
    _made: trace.SpanContext | None = None

    def __init__(
        self,
        name: str,
        trace_id: bytes,
        state: trace.TraceState | None,
        above: "Remote | Span | trace.SpanContext | None",
        kind: trace.SpanKind,
        shared: Shared,
        own: dict[str, AttributeValue],
        links: Sequence[trace.Link | Remote],
        start_time: int | None,
        tracer: Maker,
    ) -> None:
        self.trace_id, self.span_id, self.state = trace_id, drawn(64), state
        self.above = above
        self.shared, self.own = shared, own
        # Others may have the same.
        self.linked: tuple[trace.Link | Remote, ...] | list[trace.Link | Remote] = tuple(links)
        self._name = name
        self._kind = kind
        self._start_time: int = start_time or time.time_ns()
        self._tracer = tracer

    @property
    def _resource(self) -> Resource:  # type: ignore[override]
        return self._tracer.resource

    @property
    def _instrumentation_scope(self) -> InstrumentationScope:  # type: ignore[override]
        return self._tracer.scope

    @property
    def _context(self) -> trace.SpanContext:  # type: ignore[override]
        if self._made is None:
            self._made = context_of(self.trace_id, self.span_id, _SAMPLED, self.state)
        return self._made

    @property
    def _parent(self) -> trace.SpanContext | None:  # type: ignore[override]
        if isinstance(self.above, Remote):
            return self.above.context
        return self.above.get_span_context() if isinstance(self.above, Span) else self.above

    @property
    def _attributes(self) -> dict[str, AttributeValue]:  # type: ignore[override]
        return {**self.shared, **self.own}

    @property
    def _links(self) -> list[trace.Link]:  # type: ignore[override]
        return [
            trace.Link(link.context, getattr(link, "attributes", None) or {})
            for link in self.linked
        ]

    def get_span_context(self) -> trace.SpanContext:
        return self._context

    def is_recording(self) -> bool:
        return self._end_time is None

    def end(self, end_time: int | None = None) -> None:
        if self._end_time is None:
            self._end_time = end_time or time.time_ns()
            self._tracer.processor.hear_end(self)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        if key in self.shared:
            self.set_attributes({key: value})
        elif self._end_time is None:
            self.own[key] = value

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        if self._end_time is None:
            if not self.shared.keys().isdisjoint(attributes):
                self.shared, self.own = _NONE_SHARED, self._attributes
            self.own.update(attributes)

    def share(self, shared: Shared) -> None:
        """These in place of what it shared, and of what it was given itself under their names."""
        if self._end_time is None:
            if not shared.keys().isdisjoint(self.own):
                self.own = {k: value for k, value in self.own.items() if k not in shared}
            self.shared = shared

    def add_link(self, context: trace.SpanContext, attributes: Attributes = None) -> None:
        link = trace.Link(context, attributes or {})
        if tells(link):
            self.link_with(link)

    def link_with(self, link: trace.Link | Remote) -> None:
        if self._end_time is None:
            if isinstance(self.linked, tuple):
                self.linked = list(self.linked)
            self.linked.append(link)

    def add_event(
        self, name: str, attributes: Attributes = None, timestamp: int | None = None
    ) -> None:
        if self._end_time is None:
            self._events = (*self._events, Event(name, attributes, timestamp))

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        kind = type(exception)
        where = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        told = {
            "exception.type": f"{where}{kind.__qualname__}",
            "exception.message": str(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception))[-STACK:],
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**told, **(attributes or {})}, timestamp)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if error is not None:
            self.record_exception(error, escaped=True)
            self.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
        self.end()

    def set_status(
        self, status: trace.Status | trace.StatusCode, description: str | None = None
    ) -> None:
        if self._end_time is None:
            if not isinstance(status, trace.Status):
                status = trace.Status(status, description)
            if self._status.status_code is not trace.StatusCode.OK and not status.is_unset:
                self._status = status

    def update_name(self, name: str) -> None:
        if self._end_time is None:
            self._name = name


class NotSampled(trace.NonRecordingSpan):
    """Its context is made when somebody asks for it; mostly nobody does."""

    def __init__(self, trace_id: bytes, state: trace.TraceState | None) -> None:
        self._place = trace_id, state
        self._made: trace.SpanContext | None = None

    @property
    def _context(self) -> trace.SpanContext:  # type: ignore[override]
        if self._made is None:
            trace_id, state = self._place
            self._made = context_of(trace_id, drawn(64), _NOT_SAMPLED, state)
        return self._made

    def get_span_context(self) -> trace.SpanContext:
        return self._context


def tells(link: trace.Link) -> bool:
    """Whether a link is one: of what is no span it may have attributes or a state."""
    return bool(link.context.is_valid or link.attributes or link.context.trace_state)


def context_of(
    trace_id: bytes, span_id: bytes, flags: trace.TraceFlags, state: trace.TraceState | None
) -> trace.SpanContext:
    ids = int.from_bytes(trace_id), int.from_bytes(span_id)
    return trace.SpanContext(*ids, False, flags, state)


def drawn(bits: int) -> bytes:
    """By lot; not 0, which is no id."""
    while not (drawn := getrandbits(bits)):
        pass
    return drawn.to_bytes(bits // 8)
