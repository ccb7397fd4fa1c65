"""Spans that cost a fifth of the SDK's, for what is done with each record.

The SDK checks and copies each attribute under a lock. These take what they are given: attributes as
OpenTelemetry wants them, by one thread at a time. Samplers, processors and exporters are the SDK's,
and see of them what they see of its own.
"""

import time
import traceback
from collections.abc import Mapping, Sequence
from random import getrandbits
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.util.types import AttributeValue

Attributes = Mapping[str, AttributeValue] | None

STACK = 4000  # characters of a stack trace; its end says most

_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)
_UNSET = trace.Status()


class Span(ReadableSpan, trace.Span):
    """A recorded span. What is said of it after its end is passed over."""

    def __init__(
        self,
        name: str,
        context: trace.SpanContext,
        parent: trace.SpanContext | None,
        kind: trace.SpanKind,
        attributes: Attributes,
        links: Sequence[trace.Link],
        start_time: int | None,
        tracer: "Tracer",
    ) -> None:
        # All that ReadableSpan has; its own __init__ would cost twice as much.
        self._name = name
        self._context = context
        self._parent = parent
        self._kind = kind
        self._attributes: dict[str, AttributeValue] = dict(attributes) if attributes else {}
        self._links: Sequence[trace.Link] = links
        self._events: Sequence[Event] = ()
        self._status = _UNSET
        self._start_time = start_time or time.time_ns()
        self._end_time: int | None = None
        self._resource = tracer.resource
        self._instrumentation_scope = tracer.scope
        self._instrumentation_info = None
        self._processor = tracer.processor

    def get_span_context(self) -> trace.SpanContext:
        return self._context  # type: ignore[return-value]  # it always has one

    def is_recording(self) -> bool:
        return self._end_time is None

    def end(self, end_time: int | None = None) -> None:
        if self._end_time is None:
            self._end_time = end_time or time.time_ns()
            self._processor.on_end(self)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        if self._end_time is None:
            self._attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        if self._end_time is None:
            self._attributes.update(attributes)

    def add_link(self, context: trace.SpanContext, attributes: Attributes = None) -> None:
        if self._end_time is None:
            if not isinstance(self._links, list):
                self._links = list(self._links)
            self._links.append(trace.Link(context, attributes or {}))

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


class Tracer(trace.Tracer):
    """Thread-safe."""

    def __init__(
        self,
        sampler: Sampler,
        resource: Resource,
        scope: InstrumentationScope,
        processor: SpanProcessor,
    ) -> None:
        self.resource, self.scope, self.processor = resource, scope, processor
        self._sampler = sampler
        # As all of OTEL_TRACES_SAMPLER that begin with parentbased_: asked for roots only.
        self._children_follow = isinstance(sampler, ParentBased)

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[trace.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace.Span:
        found = trace.get_current_span(context).get_span_context()
        parent = found if found.is_valid else None
        trace_id = parent.trace_id if parent else _nonzero(128)
        state = parent.trace_state if parent else None
        if parent and self._children_follow:
            sampled = parent.trace_flags.sampled
        else:
            result = self._sampler.should_sample(context, trace_id, name, kind, attributes, links)
            sampled, state = result.decision is Decision.RECORD_AND_SAMPLE, result.trace_state
        flags = _SAMPLED if sampled else trace.TraceFlags.get_default()
        own = trace.SpanContext(trace_id, _nonzero(64), False, flags, state)
        if not sampled:
            return trace.NonRecordingSpan(own)
        span = Span(name, own, parent, kind, attributes, links or (), start_time, self)
        self.processor.on_start(span, context)  # type: ignore[arg-type]  # not the SDK's class
        return span

    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[trace.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Any:
        span = self.start_span(name, context, kind, attributes, links, start_time)
        return trace.use_span(span, end_on_exit, record_exception, set_status_on_exception)


class Provider(TracerProvider):
    """The SDK's, but for the spans."""

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> trace.Tracer:
        scope = InstrumentationScope(
            instrumenting_module_name, instrumenting_library_version, schema_url, attributes
        )
        return Tracer(self.sampler, self.resource, scope, self._active_span_processor)


def _nonzero(bits: int) -> int:
    while not (drawn := getrandbits(bits)):
        pass
    return drawn
