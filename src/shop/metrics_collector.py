"""Metrics on their way to a collector, by OTLP: one line when it goes, one when it is back."""

import logging
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult

log = logging.getLogger(__name__)


class Collector(OTLPMetricExporter):
    """Where the standard variables say. What the SDK's exporter says of each that fails is to be
    silenced."""

    _failing = False

    def _export_batch(self, export_request: Any) -> MetricExportResult:
        sent = self._client.export(export_request.SerializeToString())
        if sent.success:
            if self._failing:
                log.info("the collector takes metrics again")
            self._failing = False
            return MetricExportResult.SUCCESS
        if not self._failing:
            why = sent.reason or sent.status_code or sent.error or "unknown"
            log.warning("metrics are lost, trying on with later ones: %.300s", why)
        self._failing = True
        return MetricExportResult.FAILURE
