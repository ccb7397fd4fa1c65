"""The SDK's provider, whose tracers make the spans of `shop.tracing.spans`."""

from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import (
    ReadableSpan,
    SpanProcessor,
    SynchronousMultiSpanProcessor,
    TracerProvider,
    sampling,
)
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.util.types import AttributeValue

from shop.tracing.remote import Above, Remote, Shared, around
from shop.tracing.spans import Attributes, NotSampled, Span, drawn, tells

# What the description of a sampler ends with whose children are sampled as their parents are.
_FOLLOWING = ParentBased(sampling.ALWAYS_ON).get_description().partition(",")[2]  # type: ignore[no-untyped-call]


def _follow(sampler: Sampler) -> bool:
    """Whether children are sampled as their parents are, whatever else the sampler does."""
    delegates = [of for name, of in vars(sampler).items() if "parent" in name]
    return (
        type(sampler) in (ParentBased, ParentBasedTraceIdRatio)
        and all(type(of) is StaticSampler for of in delegates)
        and sampler.get_description().endswith(_FOLLOWING)
    )


class Tracer(trace.Tracer):
    """Thread-safe. What a sampler would record without sampling it is not recorded."""

    def __init__(
        self,
        sampler: Sampler,
        resource: Resource,
        scope: InstrumentationScope,
        processor: "Processors",
    ) -> None:
        self.resource, self.scope, self.processor = resource, scope, processor
        self._sampler = sampler
        # As all of OTEL_TRACES_SAMPLER that begin with parentbased_: asked for roots only. No
        # subclass, which may decide otherwise.
        self._children_follow = _follow(sampler)
        # A root is sampled whose id's last 8 bytes are below this, where that is all that decides.
        root = getattr(sampler, "_root", None) if self._children_follow else None
        self._bound = root.bound if type(root) is TraceIdRatioBased else None

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
        trace_id = parent.trace_id.to_bytes(16) if parent else drawn(128)
        state = parent.trace_state if parent else None
        own: Attributes = attributes
        if parent and self._children_follow:
            sampled = parent.trace_flags.sampled
        else:
            asked = context, int.from_bytes(trace_id), name, kind, attributes, links
            result = self._sampler.should_sample(*asked)
            sampled, state = result.decision is Decision.RECORD_AND_SAMPLE, result.trace_state
            own = result.attributes
        if not sampled:
            return NotSampled(trace_id, state)
        told = dict(own) if own else {}
        valid = [link for link in links or () if tells(link)]
        span = Span(name, trace_id, state, parent, kind, Shared(), told, valid, start_time, self)
        self.processor.on_start(span, context)  # type: ignore[arg-type]  # not the SDK's class
        return span

    def begin(
        self,
        name: str,
        above: Above,
        kind: trace.SpanKind,
        shared: Shared,
        own: dict[str, AttributeValue],
        *,
        links: Sequence[trace.Link] = (),
        start_time: int | None = None,
    ) -> trace.Span:
        """As `remote.Begin`: what start_span begins around that span, in less time."""
        kin: Remote | Span | None = None  # whose sampling is this one's
        if type(above) is Remote:
            kin = above if above.sampled else None
        elif isinstance(above, Span):
            kin = above
        trace_id, state = (kin.trace_id, kin.state) if kin else (drawn(128), None)
        if above is None and self._bound is not None:
            if int.from_bytes(trace_id[8:]) >= self._bound:
                return NotSampled(trace_id, None)
        elif kin is None or not self._children_follow:
            told = {**shared, **own}
            return self.start_span(name, around(above), kind, told, links, start_time)
        span = Span(name, trace_id, state, kin, kind, shared, own, links, start_time, self)
        if self.processor.hear_beginnings:
            self.processor.on_start(span, around(above))  # type: ignore[arg-type]  # as above
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


class Processors(SynchronousMultiSpanProcessor):
    """All of a provider's. `hear_beginnings`: whether one of them does; most do not. `hear_end` is
    `on_end` without a turn for the only one."""

    hear_beginnings = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.hear_end: Callable[[ReadableSpan], None] = self.on_end

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        super().add_span_processor(span_processor)
        alone = self._span_processors == (span_processor,)
        self.hear_end = span_processor.on_end if alone else self.on_end
        if type(span_processor).on_start is not SpanProcessor.on_start:
            self.hear_beginnings = True


class Provider(TracerProvider):
    """The SDK's, but for the spans."""

    def __init__(self, **options: Any) -> None:
        self._processors = Processors()
        super().__init__(active_span_processor=self._processors, **options)

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
        return Tracer(self.sampler, self.resource, scope, self._processors)
