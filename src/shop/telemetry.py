"""Logs and traces of a process. Logs carry the correlation id and, where sampled, the trace.

Tracing is off until a standard OTEL_… variable asks for it: OTEL_EXPORTER_OTLP_ENDPOINT (or
…_TRACES_ENDPOINT), with OTEL_TRACES_SAMPLER for the root's decision. Off, it costs nothing.
"""

import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor

from shop.kafka.dispatch import current_message
from shop.printable import printable
from shop.settings import Settings

if TYPE_CHECKING:
    from shop.metrics import Metrics

MOST_LINKS = 10_000  # as many as SHOP_KAFKA__MAX_POLL_RECORDS may be

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(settings: Settings, role: str, stream: TextIO | None = None) -> None:
    """Set up logging and tracing for this process; `role` names it in both. Call once."""
    out = stream or sys.stderr
    plain = settings.log.format == "console" or (settings.log.format == "auto" and out.isatty())
    renderer: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=0)]
        if plain
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, _where],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log.level)
    for noisy in ("uvicorn.access", "asyncio", "alembic", "mail.log"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # What it says of failed commits concerns Kafka's copy of positions that the database has.
    logging.getLogger("quixstreams").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[*_SHARED, _where, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=role)
    if tracing_asked_for():
        _start_tracing(role)


def tracing_asked_for() -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return False
    return bool(
        os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )


def _start_tracing(role: str) -> None:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from shop.otlp import JsonSpanExporter

    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    if not protocol.startswith("http/"):
        logging.getLogger(__name__).warning(
            "OTEL_EXPORTER_OTLP_PROTOCOL=%s is not supported; using http/json", protocol
        )
    name = os.environ.get("OTEL_SERVICE_NAME", f"shop-{role}")
    # A poll is linked with each of its records; the SDK keeps 128 links of a span.
    links = int(os.environ.get("OTEL_SPAN_LINK_COUNT_LIMIT", MOST_LINKS))
    provider = TracerProvider(
        resource=Resource.create({"service.name": name}), span_limits=SpanLimits(max_links=links)
    )
    provider.add_span_processor(BatchSpanProcessor(JsonSpanExporter()))
    trace.set_tracer_provider(provider)


def start_metrics(settings: Settings, role: str) -> "Metrics | None":
    """The metrics of this process; None where SHOP_METRICS or OTEL_SDK_DISABLED turns them off."""
    if not settings.metrics or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    from shop.metrics import Metrics

    return Metrics(role)


def flush() -> None:
    """Send what was recorded; at the end of a process."""
    shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)
    if shutdown is not None:
        shutdown()


def _where(_: object, __: str, event: EventDict) -> EventDict:
    message = current_message.get()
    if message is not None:
        event.setdefault("correlation_id", printable(message.correlation_id))
        event.setdefault("event_id", printable(message.event_id))
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event
