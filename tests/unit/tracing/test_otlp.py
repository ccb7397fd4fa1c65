"""The shop's encoding of spans against the SDK's own."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shop.tracing.otlp import LONGEST, encoded
from shop.tracing.spans import Provider

SIMPLE = (
    st.text()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary()
)
ATTRIBUTES = st.dictionaries(st.text(min_size=1), SIMPLE | st.lists(st.text()), max_size=5)
LINKED = trace.SpanContext(0xA1, 0xB2, True, trace.TraceFlags(1), trace.TraceState([("k", "v")]))


def spans(attributes: dict[str, Any], text: str) -> tuple[ReadableSpan, ...]:
    """A parent and its child, of two tracers."""
    provider = Provider(resource=Resource({"service.name": "shop-ä", "n": 1}))
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("one").start_as_current_span(
        "parent", Context(), trace.SpanKind.SERVER, attributes, [trace.Link(LINKED, attributes)]
    ):
        child = provider.get_tracer("two").start_span(text, kind=trace.SpanKind.PRODUCER)
        child.add_event(text, attributes)
        child.set_status(trace.StatusCode.ERROR, text)
        child.end()
    return exporter.get_finished_spans()


@given(ATTRIBUTES, st.text())
def test_it_says_what_the_sdks_says(attributes: dict[str, Any], text: str) -> None:
    found = spans(attributes, text)

    assert by_name(parsed(encoded(found))) == by_name(encode_spans(found))


def parsed(sent: bytes) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(sent)


def by_name(request: ExportTraceServiceRequest) -> dict[str, tuple[Any, ...]]:
    """Spans by scope; without what the SDK's encoder leaves out: which are sampled, and the states
    of links."""
    (resource,) = request.resource_spans
    found = {}
    for scope in resource.scope_spans:
        for span in scope.spans:
            span.flags &= 0x300
            span.status.SetInParent()
            for link in span.links:
                link.flags &= 0x300
                link.ClearField("trace_state")
        found[scope.scope.name] = (resource.resource, list(scope.spans))
    assert set(found) == {"one", "two"}
    return found


def test_it_says_which_spans_are_sampled_and_the_states_of_their_traces() -> None:
    (resource,) = parsed(encoded(spans({}, "x"))).resource_spans
    found = {scope.scope.name: scope.spans[0] for scope in resource.scope_spans}

    assert found["one"].flags == 0x101
    assert found["one"].links[0].flags == 0x301
    assert found["one"].links[0].trace_state == "k=v"


@pytest.mark.parametrize("length", [0, 127, 128, 2_990, 3_010, LONGEST, 4 * LONGEST])
def test_texts_are_whole_up_to_a_length(length: int) -> None:
    text = "ä" * length
    found = spans({"long": text}, text)
    expected = spans({"long": text[:LONGEST]}, text)

    told = by_name(parsed(encoded(found)))["one"][1][0].attributes
    assert told == by_name(encode_spans(expected))["one"][1][0].attributes


def test_what_is_no_unicode_does_not_lose_the_other_spans() -> None:
    (resource,) = parsed(encoded(spans({"key": "half a \ud83d pair"}, "x"))).resource_spans

    assert resource.scope_spans[1].spans[0].attributes[0].value.string_value == "half a ? pair"


def test_what_is_no_attribute_is_told_as_a_text() -> None:
    (resource,) = parsed(encoded(spans({"nothing": None, "thing": {1}}, "x"))).resource_spans

    values = {a.key: a.value for a in resource.scope_spans[1].spans[0].attributes}
    assert values["nothing"].WhichOneof("value") is None
    assert values["thing"].string_value == "{1}"


def test_nothing_is_nothing() -> None:
    assert [list(r.scope_spans) for r in parsed(encoded([])).resource_spans] == [[]]
