"""The shop's spans against the SDK's: whoever uses or processes one must not see a difference."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider, sampling

from shop.tracing.begin import begin_with, linking, share, within
from shop.tracing.provider import Provider
from shop.tracing.remote import Remote, Shared

SENDER = trace.SpanContext(0xA1, 0xB2, True, trace.TraceFlags(1), trace.TraceState([("k", "v")]))
REMOTE = Remote((0xA1).to_bytes(16), (0xB2).to_bytes(8), 1, SENDER.trace_state)
UNSAMPLED = trace.SpanContext(0xA1, 0xB2, True, trace.TraceFlags(0))


def below(parent: trace.SpanContext) -> Context:
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), Context())


SUSPICIOUS = sampling.ParentBased(sampling.ALWAYS_ON, remote_parent_sampled=sampling.ALWAYS_OFF)
NEVER = sampling.SamplingResult(sampling.Decision.DROP)


class Nothing(sampling.ParentBasedTraceIdRatio):
    """Somebody's own sampler, which describes itself as the one that it extends."""

    def should_sample(self, *_: Any, **__: Any) -> sampling.SamplingResult:
        return NEVER


class NoChildren(sampling.StaticSampler):
    def should_sample(self, *_: Any, **__: Any) -> sampling.SamplingResult:
        return NEVER


class NoRoots(sampling.TraceIdRatioBased):
    def should_sample(self, *_: Any, **__: Any) -> sampling.SamplingResult:
        return NEVER


CHILDLESS = sampling.ParentBased(
    sampling.ALWAYS_ON, remote_parent_sampled=NoChildren(sampling.Decision.RECORD_AND_SAMPLE)
)


class Begun(SpanProcessor):
    """The names of spans that have begun, and of those that they are in."""

    def __init__(self) -> None:
        self.names: list[tuple[str, int]] = []

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        parent = trace.get_current_span(parent_context).get_span_context()
        assert span.is_recording()
        self.names.append((span.name, parent.span_id if parent.is_remote else 0))


@pytest.mark.parametrize("kind", [Provider, TracerProvider])
def test_a_processor_hears_of_the_beginning_too(kind: type[TracerProvider]) -> None:
    provider, heard = kind(), Begun()
    provider.add_span_processor(heard)
    tracer = provider.get_tracer("shop.test")
    tracer.start_span("process", below(SENDER))
    tracer.start_span("not sampled", below(UNSAMPLED))
    begin_with(tracer)("begun", REMOTE, trace.SpanKind.CONSUMER, Shared(), {})

    assert heard.names == [("process", SENDER.span_id), ("begun", SENDER.span_id)]


class Kept(SpanProcessor):
    """Unlike the SDK's processors it does not hear of beginnings, as ours does not."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


def finished(
    kind: type[TracerProvider], program: Callable[[trace.Tracer], object], **options: Any
) -> list[ReadableSpan]:
    provider, kept = kind(**options), Kept()
    provider.add_span_processor(kept)
    program(provider.get_tracer("shop.test"))
    return kept.spans


def attributes_and_links(tracer: trace.Tracer) -> None:
    links = [trace.Link(SENDER, {"why": "polled"}), trace.Link(trace.INVALID_SPAN_CONTEXT)]
    span = tracer.start_span(
        "poll", Context(), trace.SpanKind.CLIENT, {"a": "text", "n": 1}, links, start_time=10
    )
    span.set_attribute("a", "another text")
    span.set_attributes({"list": ["x", "y"], "yes": True, "share": 0.5})
    span.add_link(UNSAMPLED)
    span.add_link(trace.INVALID_SPAN_CONTEXT)
    span.update_name("poll TOPIC")
    span.add_event("seen", {"how": "well"}, 15)
    span.end(20)
    span.end(30)
    span.set_attribute("late", 1)
    span.set_status(trace.StatusCode.ERROR)
    span.update_name("late")
    span.add_link(SENDER)
    span.add_event("late")


def a_child_of_a_remote_span(tracer: trace.Tracer) -> None:
    tracer.start_span("process", below(SENDER), trace.SpanKind.CONSUMER, start_time=1).end(2)


def a_current_child(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("outer", Context(), start_time=1, end_on_exit=False) as outer:
        assert trace.get_current_span() is outer
        tracer.start_span("inner", start_time=2).end(3)
    outer.end(4)


def begun_below_a_remote_span(tracer: trace.Tracer) -> None:
    begin = begin_with(tracer)
    shared = Shared({"a": "text", "n": 1})
    links = [trace.Link(SENDER)]
    span = begin(
        "process", REMOTE, trace.SpanKind.CONSUMER, shared, {"b": 1}, links=links, start_time=10
    )
    another = begin("process", REMOTE, trace.SpanKind.CONSUMER, shared, {"b": 2}, start_time=10)
    with trace.use_span(span):
        begin(
            "send", trace.get_current_span(), trace.SpanKind.PRODUCER, shared, {}, start_time=11
        ).end(12)
    span.set_attribute("b", 3)
    span.set_attributes({"n": 4, "more": 5})
    another.set_attribute("a", "another text")
    for one in (span, another):
        link_with = linking(one)
        link_with(REMOTE)
        one.end(20)
        one.set_attribute("a", "late")
        link_with(REMOTE)
    assert shared == {"a": "text", "n": 1}


def begun_above_all(tracer: trace.Tracer) -> None:
    begin = begin_with(tracer)
    root = begin("poll", None, trace.SpanKind.CLIENT, Shared({"a": 1}), {"b": 2}, start_time=10)
    begin("commit", root, trace.SpanKind.INTERNAL, Shared(), {}, start_time=11).end(12)
    root.end(20)
    unsampled = Remote(b"\x01" * 16, b"\x02" * 8, 0)
    assert not begin("process", unsampled, trace.SpanKind.CONSUMER, Shared(), {}).is_recording()


def shared_and_shared_anew(tracer: trace.Tracer) -> None:
    shared, more = Shared({"method": "GET"}), Shared({"method": "GET", "status": 200})
    begin = begin_with(tracer)
    spans = [
        begin("GET", None, trace.SpanKind.SERVER, shared, {"path": path}, start_time=10)
        for path in ("/a", "/b")
    ]
    share(spans[0], more)
    for span in spans:
        span.end(20)
    share(spans[1], more)
    assert (shared, more) == ({"method": "GET"}, {"method": "GET", "status": 200})


def an_error(tracer: trace.Tracer) -> None:
    span = tracer.start_span("fails", Context(), start_time=1)
    try:
        raise json.JSONDecodeError("no value", "x", 0)
    except ValueError as error:
        span.record_exception(error, {"more": 1}, 2)
    span.set_status(trace.StatusCode.ERROR, "no value")
    span.set_status(trace.StatusCode.UNSET)
    span.end(3)


def an_error_that_goes_through(tracer: trace.Tracer) -> None:
    with (
        pytest.raises(KeyError),
        tracer.start_as_current_span("fails", Context(), start_time=1, record_exception=False),
    ):
        raise KeyError("nothing")


def an_error_within_a_span(tracer: trace.Tracer) -> None:
    with pytest.raises(KeyError), tracer.start_span("fails", Context(), start_time=1):
        raise KeyError("nothing")


def an_error_that_is_none(tracer: trace.Tracer) -> None:
    span = tracer.start_span("well", Context(), start_time=1)
    span.set_status(trace.Status(trace.StatusCode.OK))
    span.set_status(trace.StatusCode.ERROR, "too late")
    span.end(3)


@pytest.mark.parametrize(
    "program",
    [
        attributes_and_links,
        a_child_of_a_remote_span,
        a_current_child,
        begun_below_a_remote_span,
        begun_above_all,
        shared_and_shared_anew,
        an_error,
        an_error_that_goes_through,
        an_error_within_a_span,
        an_error_that_is_none,
    ],
)
def test_a_processor_sees_what_it_sees_of_the_sdks_spans(
    program: Callable[[trace.Tracer], object],
) -> None:
    ours, theirs = finished(Provider, program), finished(TracerProvider, program)

    assert theirs
    assert [seen(span) for span in ours] == [seen(span) for span in theirs]


def seen(span: ReadableSpan) -> dict[str, Any]:
    """All of it but what is drawn by lot, and the end that nobody gave."""
    found: dict[str, Any] = json.loads(span.to_json())
    del found["context"]["span_id"], found["resource"]
    if not span.parent or span.parent.trace_id != SENDER.trace_id:
        del found["context"]["trace_id"]
    if not span.parent or not span.parent.is_remote:
        found["parent_id"] = found["parent_id"] is not None
    for name in ("start_time", "end_time"):
        if (getattr(span, name) or 0) > 100:
            del found[name]
    for event, told in zip(span.events, found["events"], strict=True):
        if event.timestamp > 100:
            del told["timestamp"]
    assert span.instrumentation_scope is not None
    return found | {"scope": span.instrumentation_scope.name, "flags": flags(span) & 1}


def flags(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_flags)


def started(tracer: trace.Tracer, parent: trace.SpanContext | None) -> trace.Span:
    return tracer.start_span("x", below(parent) if parent else Context())


def begun_at_once(tracer: trace.Tracer, parent: trace.SpanContext | None) -> trace.Span:
    ids = (parent.trace_id.to_bytes(16), parent.span_id.to_bytes(8)) if parent else None
    above = Remote(*ids, parent.trace_flags, parent.trace_state) if parent and ids else None
    return begin_with(tracer)("x", above, trace.SpanKind.INTERNAL, Shared(), {})


@pytest.mark.parametrize(
    ("sampler", "parent", "recorded"),
    [
        (sampling.DEFAULT_ON, None, True),
        (sampling.DEFAULT_ON, SENDER, True),
        (sampling.DEFAULT_ON, UNSAMPLED, False),
        (sampling.DEFAULT_OFF, None, False),
        (sampling.DEFAULT_OFF, SENDER, True),
        (sampling.ALWAYS_OFF, SENDER, False),
        (sampling.ALWAYS_ON, UNSAMPLED, True),
        (sampling.ParentBasedTraceIdRatio(0.0), None, False),
        (SUSPICIOUS, SENDER, False),
        (sampling.TraceIdRatioBased(0.0), SENDER, False),
        (Nothing(1.0), None, False),
        (Nothing(1.0), SENDER, False),
        (CHILDLESS, SENDER, False),
        (sampling.ParentBased(NoRoots(1.0)), None, False),
        (sampling.ParentBased(NoRoots(1.0)), SENDER, True),
    ],
)
@pytest.mark.parametrize("kind", [Provider, TracerProvider])
@pytest.mark.parametrize("start", [started, begun_at_once])
def test_samplers_are_asked_as_the_sdk_asks_them(
    start: Callable[[trace.Tracer, trace.SpanContext | None], trace.Span],
    kind: type[TracerProvider],
    sampler: sampling.Sampler,
    parent: trace.SpanContext | None,
    recorded: bool,
) -> None:
    def program(tracer: trace.Tracer) -> None:
        span = start(tracer, parent)
        assert span.is_recording() == recorded
        context = span.get_span_context()
        assert context.trace_flags.sampled == recorded
        assert context.is_valid
        assert span.get_span_context() == context
        if parent:
            assert context.trace_id == parent.trace_id
            assert context.span_id != parent.span_id
        span.end()

    assert len(finished(kind, program, sampler=sampler)) == recorded


class Telling(sampling.Sampler):
    def should_sample(self, *_: Any, **__: Any) -> sampling.SamplingResult:
        return sampling.SamplingResult(sampling.Decision.RECORD_AND_SAMPLE, {"why": "asked"})

    def get_description(self) -> str:
        return "telling"


@pytest.mark.parametrize("kind", [Provider, TracerProvider])
def test_a_sampler_says_what_a_span_begins_with(kind: type[TracerProvider]) -> None:
    def program(tracer: trace.Tracer) -> None:
        tracer.start_span("x", Context(), attributes={"a": 1}).end()

    (found,) = finished(kind, program, sampler=Telling())
    assert found.attributes == {"why": "asked"}


@pytest.mark.parametrize("kind", [Provider, TracerProvider])
def test_links_that_many_spans_are_given_stay_as_they_are(kind: type[TracerProvider]) -> None:
    def program(tracer: trace.Tracer) -> None:
        links = [trace.Link(SENDER)]
        spans = [tracer.start_span("x", Context(), links=links) for _ in range(2)]
        spans[0].add_link(UNSAMPLED)
        for span in spans:
            span.end()

    assert [len(span.links) for span in finished(kind, program)] == [2, 1]


class Baggage(SpanProcessor):
    def __init__(self) -> None:
        self.found: list[object] = []

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        self.found.append(baggage.get_baggage("tenant", parent_context))


@pytest.mark.parametrize("kind", [Provider, TracerProvider])
def test_what_is_begun_below_the_current_span_has_its_context(kind: type[TracerProvider]) -> None:
    provider, processor = kind(), Baggage()
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("shop.test")
    token = context.attach(baggage.set_baggage("tenant", "42"))
    with tracer.start_as_current_span("outer"):
        above = trace.get_current_span()
        begin_with(tracer)("send", above, trace.SpanKind.PRODUCER, Shared(), {})
    context.detach(token)

    assert processor.found == ["42", "42"]


@pytest.mark.parametrize("start", [started, begun_at_once])
def test_a_share_of_roots_is_sampled_by_their_ids(
    start: Callable[[trace.Tracer, trace.SpanContext | None], trace.Span],
) -> None:
    unsampled = []

    def program(tracer: trace.Tracer) -> None:
        for _ in range(1000):
            span = start(tracer, None)
            if not span.is_recording():
                unsampled.append(span.get_span_context().trace_id)
            span.end()

    found = finished(Provider, program, sampler=sampling.ParentBasedTraceIdRatio(0.5))

    assert 300 < len(found) < 700  # beyond: once in 10^36 runs
    bound = sampling.TraceIdRatioBased.get_bound_for_rate(0.5)
    mask = sampling.TraceIdRatioBased.TRACE_ID_LIMIT
    assert all((span.context.trace_id & mask) < bound for span in found)
    assert all((trace_id & mask) >= bound for trace_id in unsampled)
    assert len(found) + len(unsampled) == 1000


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize("kind", [Provider, TracerProvider])
def test_an_error_that_cannot_say_what_it_is_goes_through_as_it_is(
    kind: type[TracerProvider],
) -> None:
    def program(tracer: trace.Tracer) -> None:
        with pytest.raises(Unspeakable), within(tracer.start_span("fails", Context())):
            raise Unspeakable

    (found,) = finished(kind, program)
    assert found.attributes == {"error.type": "Unspeakable"}
    assert found.status.status_code is trace.StatusCode.ERROR
    assert found.status.description == "Unspeakable, whose text cannot be had: ValueError"
