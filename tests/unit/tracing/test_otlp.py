"""The shop's encoding of spans against the SDK's own."""

import base64
import json
from typing import Any

from google.protobuf.json_format import ParseDict
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

from shop.tracing.otlp import encoded
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
    return ParseDict(_with_base64(json.loads(sent)), ExportTraceServiceRequest())


def _with_base64(found: Any) -> Any:
    """OTLP writes ids as hexadecimal digits, where protobuf's JSON has base64."""
    if isinstance(found, list):
        return [_with_base64(item) for item in found]
    if not isinstance(found, dict):
        return found
    return {
        key: base64.b64encode(bytes.fromhex(value)).decode()
        if key in ("traceId", "spanId", "parentSpanId")
        else _with_base64(value)
        for key, value in found.items()
    }


def by_name(request: ExportTraceServiceRequest) -> dict[str, tuple[Any, ...]]:
    """Spans by scope; without flags, in which the SDK's encoder does not say what is sampled."""
    found = {}
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                span.ClearField("flags")
                span.status.SetInParent()
                for link in span.links:
                    link.ClearField("flags")
                    link.ClearField("trace_state")  # which it leaves out
            found[scope.scope.name] = (resource.resource, list(scope.spans))
    assert set(found) == {"one", "two"}
    return found


def test_what_is_no_unicode_does_not_lose_the_other_spans() -> None:
    sent = encoded(spans({"key": "half a \ud83d pair"}, "x"))

    assert b"half a \\ud83d pair" in sent
    assert json.loads(sent)["resourceSpans"]


def test_what_is_no_attribute_is_told_as_a_text() -> None:
    sent = encoded(spans({"nothing": None, "not a number": float("nan"), "thing": {1}}, "x"))

    attributes = json.loads(sent)["resourceSpans"][1]["scopeSpans"][0]["spans"][0]["attributes"]
    assert {a["key"]: a["value"] for a in attributes} == {
        "nothing": {},
        "not a number": {"doubleValue": "NaN"},
        "thing": {"stringValue": "{1}"},
    }
