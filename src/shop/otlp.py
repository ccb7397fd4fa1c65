"""Spans as OTLP in JSON, which collectors and Jaeger take as they take protobuf.

The SDK's own encoder makes an object of protobuf for each attribute, 31 us per span; this is 6 us
(docs/decisions/0017)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import Link, SpanContext

_encode = msgspec.json.Encoder().encode


class JsonSpanExporter(OTLPSpanExporter):
    """Takes the standard variables (endpoint, headers, time-out, compression, certificates), and
    tries again, as the SDK's exporter does."""

    def __init__(self) -> None:
        super().__init__(headers={"Content-Type": "application/json"})

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._shutdown:
            return SpanExportResult.FAILURE
        sent = self._client.export(encoded(spans)).success
        return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE


def encoded(spans: Sequence[ReadableSpan]) -> bytes:
    """An ExportTraceServiceRequest."""
    by_scope: dict[Any, list[dict[str, Any]]] = {}
    for span in spans:
        by_scope.setdefault((span.resource, span.instrumentation_scope), []).append(_span(span))
    return _encode(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes(resource.attributes)},
                    "scopeSpans": [{"scope": {"name": scope.name if scope else ""}, "spans": of}],
                }
                for (resource, scope), of in by_scope.items()
            ]
        }
    )


def _span(span: ReadableSpan) -> dict[str, Any]:
    context, parent = span.context, span.parent
    assert context is not None
    found = {
        **_place(context),
        "name": span.name,
        "kind": span.kind.value + 1,
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _attributes(span.attributes),
    }
    if parent is not None:
        found["parentSpanId"] = f"{parent.span_id:016x}"
    if span.links:
        found["links"] = [_link(link) for link in span.links]
    if span.events:
        found["events"] = [
            {
                "timeUnixNano": str(event.timestamp),
                "name": event.name,
                "attributes": _attributes(event.attributes),
            }
            for event in span.events
        ]
    if span.status.status_code.value:
        found["status"] = {
            "code": span.status.status_code.value,
            "message": _text(span.status.description or ""),
        }
    return found


def _place(context: SpanContext) -> dict[str, Any]:
    found: dict[str, Any] = {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "flags": int(context.trace_flags),
    }
    if context.trace_state:
        found["traceState"] = context.trace_state.to_header()
    return found


def _link(link: Link) -> dict[str, Any]:
    return {**_place(link.context), "attributes": _attributes(link.attributes)}


def _attributes(attributes: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if not attributes:
        return []
    return [
        {
            "key": key,
            "value": {"stringValue": value}
            if type(value) is str and value.isascii()  # most are
            else _value(value),
        }
        for key, value in attributes.items()
    ]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": _text(value)}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, Iterable):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {"stringValue": _text(str(value))}


def _text(text: str) -> str:
    """Such that it can be written as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
