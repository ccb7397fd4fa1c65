"""Spans as OTLP in JSON, which collectors and Jaeger take as they take protobuf.

The SDK's own encoder makes an object of protobuf for each attribute, 31 us per span; this writes
text (docs/decisions/0017)."""

import base64
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _text  # also of what is no Unicode
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import Link, SpanContext


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
    found = ",".join([_of_one_scope(found) for found in by_scope.values()])
    return f'{{"resourceSpans":[{found}]}}'.encode("ascii")


def _of_one_scope(spans: Sequence[ReadableSpan]) -> str:
    scope = spans[0].instrumentation_scope
    resource = _attributes(spans[0].resource.attributes)
    name = _text(scope.name if scope else "")
    found = ",".join([_span(span) for span in spans])
    return (
        f'{{"resource":{{"attributes":{resource}}},'
        f'"scopeSpans":[{{"scope":{{"name":{name}}},"spans":[{found}]}}]}}'
    )


def _span(span: ReadableSpan) -> str:
    context, parent, status = span.context, span.parent, span.status
    assert context is not None
    more = ""
    if parent is not None:
        more = f',"parentSpanId":"{parent.span_id:016x}"'
    if span.links:
        more += f',"links":[{",".join([_link(link) for link in span.links])}]'
    if span.events:
        more += f',"events":[{",".join([_event(event) for event in span.events])}]'
    if status.status_code.value:
        message = _text(status.description or "")
        more += f',"status":{{"code":{status.status_code.value},"message":{message}}}'
    return (
        f'{{{_place(context)},"name":{_text(span.name)},"kind":{span.kind.value + 1},'
        f'"startTimeUnixNano":"{span.start_time}","endTimeUnixNano":"{span.end_time}",'
        f'"attributes":{_attributes(span.attributes)}{more}}}'
    )


def _place(context: SpanContext) -> str:
    state = context.trace_state
    more = f',"traceState":{_text(state.to_header())}' if state else ""
    return (
        f'"traceId":"{context.trace_id:032x}","spanId":"{context.span_id:016x}",'
        f'"flags":{int(context.trace_flags)}{more}'
    )


def _link(link: Link) -> str:
    return f'{{{_place(link.context)},"attributes":{_attributes(link.attributes)}}}'


def _event(event: Event) -> str:
    return (
        f'{{"timeUnixNano":"{event.timestamp}","name":{_text(event.name)},'
        f'"attributes":{_attributes(event.attributes)}}}'
    )


def _attributes(attributes: Mapping[str, Any] | None) -> str:
    if not attributes:
        return "[]"
    found = [
        f'{_key(key)}{{"stringValue":{_text(value)}}}}}'
        if type(value) is str  # most are
        else f"{_key(key)}{_value(value)}}}"
        for key, value in attributes.items()
    ]
    return f"[{','.join(found)}]"


@lru_cache(maxsize=1000)
def _key(key: str) -> str:
    return f'{{"key":{_text(key)},"value":'


def _value(value: Any) -> str:
    if value is None:
        return "{}"
    if isinstance(value, bool):
        return f'{{"boolValue":{"true" if value else "false"}}}'
    if isinstance(value, int):
        return f'{{"intValue":"{value}"}}'
    if isinstance(value, float):
        written = json.dumps(value)  # what is no number is a text here, as protobuf writes it
        return f'{{"doubleValue":{written if value - value == 0 else _text(written)}}}'
    if isinstance(value, bytes):
        return f'{{"bytesValue":"{base64.b64encode(value).decode()}"}}'
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f'{{"arrayValue":{{"values":[{",".join(map(_value, value))}]}}}}'
    return f'{{"stringValue":{_text(str(value))}}}'
