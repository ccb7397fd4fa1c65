"""The shop's spans against the SDK's: whoever uses or processes one must not see a difference."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shop.tracing.spans import Provider

SENDER = trace.SpanContext(0xA1, 0xB2, True, trace.TraceFlags(1), trace.TraceState([("k", "v")]))
UNSAMPLED = trace.SpanContext(0xA1, 0xB2, True, trace.TraceFlags(0))


def below(parent: trace.SpanContext) -> Context:
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), Context())


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
    provider, begun = kind(), Begun()
    provider.add_span_processor(begun)
    tracer = provider.get_tracer("shop.test")
    tracer.start_span("process", below(SENDER))
    tracer.start_span("not sampled", below(UNSAMPLED))

    assert begun.names == [("process", SENDER.span_id)]


def finished(
    kind: type[TracerProvider], program: Callable[[trace.Tracer], object], **options: Any
) -> tuple[ReadableSpan, ...]:
    provider, exporter = kind(**options), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    program(provider.get_tracer("shop.test"))
    return exporter.get_finished_spans()


def attributes_and_links(tracer: trace.Tracer) -> None:
    links = [trace.Link(SENDER, {"why": "polled"})]
    span = tracer.start_span(
        "poll", Context(), trace.SpanKind.CLIENT, {"a": "text", "n": 1}, links, start_time=10
    )
    span.set_attribute("a", "another text")
    span.set_attributes({"list": ["x", "y"], "yes": True, "share": 0.5})
    span.add_link(UNSAMPLED)
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
        an_error,
        an_error_that_goes_through,
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
        found["parent_id"] = found["parent_id"] is not None
    if (span.end_time or 0) > 100:
        del found["end_time"]
    assert span.instrumentation_scope is not None
    return found | {"scope": span.instrumentation_scope.name, "flags": flags(span) & 1}


def flags(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_flags)


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
        (sampling.TraceIdRatioBased(0.0), SENDER, False),
    ],
)
@pytest.mark.parametrize("kind", [Provider, TracerProvider])
def test_samplers_are_asked_as_the_sdk_asks_them(
    kind: type[TracerProvider],
    sampler: sampling.Sampler,
    parent: trace.SpanContext | None,
    recorded: bool,
) -> None:
    def program(tracer: trace.Tracer) -> None:
        span = tracer.start_span("x", below(parent) if parent else Context())
        assert span.is_recording() == recorded
        context = span.get_span_context()
        assert context.trace_flags.sampled == recorded
        assert context.is_valid
        if parent:
            assert context.trace_id == parent.trace_id
            assert context.span_id != parent.span_id
        span.end()

    assert len(finished(kind, program, sampler=sampler)) == recorded


def test_a_share_of_roots_is_sampled_by_their_ids() -> None:
    def program(tracer: trace.Tracer) -> None:
        for _ in range(1000):
            tracer.start_span("x", Context()).end()

    found = finished(Provider, program, sampler=sampling.ParentBasedTraceIdRatio(0.5))

    assert 300 < len(found) < 700  # beyond: once in 10^36 runs
    bound = sampling.TraceIdRatioBased.get_bound_for_rate(0.5)
    mask = sampling.TraceIdRatioBased.TRACE_ID_LIMIT
    assert all((span.context.trace_id & mask) < bound for span in found)
