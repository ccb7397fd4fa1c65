"""The metrics of a process: OpenTelemetry's SDK, read by Prometheus at /metrics.

They are pushed by OTLP too where OTEL_METRICS_EXPORTER=otlp or OTEL_EXPORTER_OTLP_METRICS_ENDPOINT
asks for it. OTEL_EXPORTER_OTLP_ENDPOINT alone does not: often that is a Jaeger, which takes none.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from shop.background import Background
from shop.db.metrics import DatabaseMetrics
from shop.http.metrics import HttpMetrics
from shop.kafka.metrics import Histogram, ListenerMetrics

Answer = TypeVar("Answer")
Numbers: TypeAlias = Iterable[tuple[Mapping[str, str], float]]


class Metrics:
    """The instruments of a process, whose `role` names it. Thread-safe."""

    def __init__(self, role: str) -> None:
        self._reading = threading.Lock()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        name = os.environ.get("OTEL_SERVICE_NAME", f"shop-{role}")
        histograms: list[Histogram] = []
        self._provider = MeterProvider(
            [_Scraped(self._registry, histograms), *_pushed(histograms)],
            Resource.create({"service.name": name}),
        )
        self._meter = self._provider.get_meter("shop")
        self.listeners = ListenerMetrics(self._meter)
        self.databases = DatabaseMetrics(self._meter)
        self.http = HttpMetrics(self._meter)
        self._asked: list[Background[Any]] = []
        histograms += [self.listeners.calls, self.listeners.ages]

    def gauge(self, name: str, unit: str, description: str, look: Callable[[], Numbers]) -> None:
        """`look` is called, by any thread, when the metrics are read. It is to know at once."""

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(value, attributes) for attributes, value in look()]

        self._meter.create_observable_gauge(name, [observe], unit, description)

    def background(self, name: str, ask: Callable[[], Answer]) -> Background[Answer]:
        """What a gauge may look at where asking takes long, or may fail."""
        self._asked.append(background := Background(name, ask))
        return background

    def page(self, accept: str) -> tuple[bytes, str]:
        """All metrics, in the text format that an Accept header asks for; and its media type."""
        encode, media_type = choose_encoder(accept)
        with self._reading:  # the reader keeps what it collects in one queue for all
            return encode(self._registry), media_type

    def close(self) -> None:
        """Push what was not pushed yet; takes some seconds where nobody takes it."""
        for background in self._asked:
            background.stop()
        self._provider.shutdown(timeout_millis=2_000)


class _Scraped(PrometheusMetricReader):
    def __init__(self, registry: CollectorRegistry, histograms: Sequence[Histogram]) -> None:
        super().__init__(scope_info_enabled=False, registry=registry)
        self._handed_on = _HandedOn(histograms)

    def _receive_metrics(self, metrics_data: sdk.MetricsData, *args: Any, **named: Any) -> None:
        super()._receive_metrics(self._handed_on.with_histograms(metrics_data), *args, **named)


class _Pushed(sdk.PeriodicExportingMetricReader):
    def __init__(self, exporter: sdk.MetricExporter, histograms: Sequence[Histogram]) -> None:
        self._handed_on = _HandedOn(histograms)
        super().__init__(exporter)

    def _receive_metrics(self, metrics_data: sdk.MetricsData, *args: Any, **named: Any) -> None:
        super()._receive_metrics(self._handed_on.with_histograms(metrics_data), *args, **named)


def _pushed(histograms: Sequence[Histogram]) -> Sequence[sdk.MetricReader]:
    asked = "otlp" if os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") else "none"
    if os.environ.get("OTEL_METRICS_EXPORTER", asked) != "otlp":
        return []
    from shop.metrics_collector import Collector

    return [_Pushed(Collector(), histograms)]


class _HandedOn:
    """Adds histograms of ours to what the SDK has collected."""

    def __init__(self, histograms: Sequence[Histogram]) -> None:
        self._histograms = histograms
        self._began = time.time_ns()

    def with_histograms(self, data: sdk.MetricsData) -> sdk.MetricsData:
        ours = [self._metric(histogram) for histogram in self._histograms]
        (resource,) = data.resource_metrics
        first, *others = resource.scope_metrics
        first = replace(first, metrics=[*first.metrics, *(m for m in ours if m.data.data_points)])
        return sdk.MetricsData([replace(resource, scope_metrics=[first, *others])])

    def _metric(self, histogram: Histogram) -> sdk.Metric:
        now = time.time_ns()
        points = [
            sdk.HistogramDataPoint(
                attributes=values.attributes,
                start_time_unix_nano=self._began,
                time_unix_nano=now,
                count=sum(values.counts),
                sum=values.total,
                bucket_counts=values.counts,
                explicit_bounds=histogram.bounds,
                min=values.least,
                max=values.most,
            )
            for values in histogram.values()
        ]
        data = sdk.Histogram(points, sdk.AggregationTemporality.CUMULATIVE)
        return sdk.Metric(histogram.name, histogram.description, "s", data)
