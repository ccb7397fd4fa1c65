"""Spans as OTLP in JSON, which collectors and Jaeger take as they take protobuf.

The SDK's own encoder makes an object of protobuf for each attribute, 31 us per span; this is 13 us
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
    by_scope: dict[tuple[int, int], list[ReadableSpan]] = {}
    for span in spans:  # by identity: to hash a resource writes it as JSON
        place = id(span.resource), id(span.instrumentation_scope)
        by_scope.setdefault(place, []).append(span)
    return _encode({"resourceSpans": [_of_one_scope(found) for found in by_scope.values()]})


def _of_one_scope(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    scope = spans[0].instrumentation_scope
    return {
        "resource": {"attributes": _attributes(spans[0].resource.attributes)},
        "scopeSpans": [
            {"scope": {"name": scope.name if scope else ""}, "spans": [_span(s) for s in spans]}
        ],
    }


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
        # The SDK's mapping takes a lock for each of its items; nobody changes it any more.
        for key, value in getattr(attributes, "_dict", attributes).items()
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
