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
from opentelemetry.sdk.trace import SpanProcessor

from shop.tracing.otlp import LONGEST, encoded, request
from shop.tracing.provider import Provider, Tracer
from shop.tracing.remote import Remote, Shared
from shop.tracing.spans import Span

SIMPLE = (
    st.text()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary()
)
ATTRIBUTES = st.dictionaries(st.text(min_size=1), SIMPLE | st.lists(st.text()), max_size=5)
LINKED = trace.SpanContext(0xA1, 0xB2, True, trace.TraceFlags(1), trace.TraceState([("k", "v")]))


RESOURCE = Resource({"service.name": "shop-ä", "n": 1})
REMOTE = Remote(b"\x01" * 16, b"\x02" * 8, 1)
STATEFUL = Remote(b"\x03" * 16, b"\x04" * 8, 1, LINKED.trace_state)


class Kept(SpanProcessor):
    def __init__(self) -> None:
        self.ended: list[Span] = []

    def on_end(self, span: Any) -> None:
        self.ended.append(span)


def spans(attributes: dict[str, Any], text: str) -> list[Span]:
    """A parent and its child, of two tracers, and one begun below each of two remote spans."""
    provider, kept = Provider(resource=RESOURCE), Kept()
    provider.add_span_processor(kept)
    one, two, three = (provider.get_tracer(name) for name in ("one", "two", "three"))
    with one.start_as_current_span(
        "parent", Context(), trace.SpanKind.SERVER, attributes, [trace.Link(LINKED, attributes)]
    ):
        child = two.start_span(text, kind=trace.SpanKind.PRODUCER)
        child.add_event(text, attributes)
        child.set_status(trace.StatusCode.ERROR, text)
        child.end()
    assert isinstance(three, Tracer)
    shared = Shared({"shared": text, "messaging.system": "kafka"})
    for above in (REMOTE, STATEFUL):
        own = {f"own {name}": value for name, value in attributes.items()}
        begun = three.begin("begun", above, trace.SpanKind.CONSUMER, shared, own)
        assert isinstance(begun, Span)
        begun.link_with(REMOTE)
        begun.link_with(STATEFUL)
        if above is STATEFUL:
            begun.set_attribute("shared", "of its own")
        three.begin(text, begun, trace.SpanKind.INTERNAL, shared, {}).end()
        begun.end()
    return kept.ended


def sent(found: list[Span]) -> bytes:
    by_scope: dict[str, bytes] = {}
    for scope, span in map(encoded, found):
        by_scope[scope] = by_scope.get(scope, b"") + span
    return request(RESOURCE, by_scope)


@given(ATTRIBUTES, st.text())
def test_it_says_what_the_sdks_says(attributes: dict[str, Any], text: str) -> None:
    found = spans(attributes, text)

    assert by_name(parsed(sent(found))) == by_name(encode_spans(found))


def parsed(message: bytes) -> ExportTraceServiceRequest:
    found: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(message)
    return found


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
    assert set(found) == {"one", "two", "three"}
    return found


def test_it_says_which_spans_are_sampled_and_the_states_of_their_traces() -> None:
    (resource,) = parsed(sent(spans({}, "x"))).resource_spans
    found = {scope.scope.name: scope.spans[0] for scope in resource.scope_spans}

    assert found["one"].flags == 0x101
    assert found["one"].links[0].flags == 0x301
    assert found["one"].links[0].trace_state == "k=v"
    begun = found["three"]  # below that, of the same trace
    assert (begun.flags, begun.trace_state) == (0x101, "")
    (resource,) = parsed(sent(spans({}, "x"))).resource_spans
    below_remote = [span for span in resource.scope_spans[-1].spans if span.name == "begun"]
    assert [span.flags for span in below_remote] == [0x301, 0x301]
    assert [span.trace_state for span in below_remote] == ["", "k=v"]
    for span in below_remote:
        assert [(link.flags, link.trace_state) for link in span.links] == [
            (0x301, ""),
            (0x301, "k=v"),
        ]


@pytest.mark.parametrize("length", [0, 127, 128, 2_990, 3_010, LONGEST, 4 * LONGEST])
def test_texts_are_whole_up_to_a_length(length: int) -> None:
    text = "ä" * length
    found = spans({"long": text}, text)
    expected = spans({"long": text[:LONGEST]}, text)

    told = by_name(parsed(sent(found)))["one"][1][0].attributes
    assert told == by_name(encode_spans(expected))["one"][1][0].attributes


def test_what_is_no_unicode_does_not_lose_the_other_spans() -> None:
    (resource,) = parsed(sent(spans({"key": "half a \ud83d pair"}, "x"))).resource_spans

    assert resource.scope_spans[1].spans[0].attributes[0].value.string_value == "half a ? pair"


def test_what_is_no_attribute_is_told_as_a_text() -> None:
    (resource,) = parsed(sent(spans({"nothing": None, "thing": {1}}, "x"))).resource_spans

    values = {a.key: a.value for a in resource.scope_spans[1].spans[0].attributes}
    assert values["nothing"].WhichOneof("value") is None
    assert values["thing"].string_value == "{1}"


def test_nothing_is_nothing() -> None:
    assert [list(r.scope_spans) for r in parsed(sent([])).resource_spans] == [[]]
