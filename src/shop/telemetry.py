"""The telemetry of a process: its log, its traces and its metrics.

Tracing is off until a standard OTEL_… variable asks for it: OTEL_EXPORTER_OTLP_ENDPOINT (or
…_TRACES_ENDPOINT), with OTEL_TRACES_SAMPLER for the root's decision. Off, it costs nothing.
"""

import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

from opentelemetry import trace

from shop import process_log
from shop.settings import Settings

if TYPE_CHECKING:
    from shop.metrics import Metrics


def configure(settings: Settings, role: str, out: TextIO | None = None) -> None:
    """Set up logging and tracing for this process; `role` names it in both. Call once."""
    process_log.configure(settings.log, role, out or sys.stderr)
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

    from shop.tracing.export import SpanQueue
    from shop.tracing.otlp import Collector
    from shop.tracing.provider import Provider

    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    if protocol != "http/protobuf":
        logging.getLogger(__name__).warning(
            "OTEL_EXPORTER_OTLP_PROTOCOL=%s is not supported; using http/protobuf", protocol
        )
    name = os.environ.get("OTEL_SERVICE_NAME", f"shop-{role}")
    resource = Resource.create({"service.name": name})
    provider = Provider(resource=resource)
    provider.add_span_processor(SpanQueue(Collector(resource)))
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
