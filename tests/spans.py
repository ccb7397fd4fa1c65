"""The spans of this process. A provider can be set only once in it, so that all tests share one."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shop.tracing.provider import Provider


class _Keeping(SpanProcessor):
    """Unlike the SDK's processors it does not hear of beginnings, as the shop's does not."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def on_end(self, span: ReadableSpan) -> None:
        self._exporter.export((span,))


@contextmanager
def kept_spans() -> Iterator[InMemorySpanExporter]:
    """All that end within the block."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = Provider()
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(_Keeping(exporter))
    yield exporter
    exporter.shutdown()
