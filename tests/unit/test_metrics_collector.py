"""Metrics that nobody takes for a while."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from shop.broker import free_port
from shop.metrics_collector import Collector
from tests import logs

LOGGER = "shop.metrics_collector"


class Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_collector_that_is_away_and_comes_back_is_two_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", "opentelemetry")  # as in a process of the shop
    caplog.set_level("INFO", "shop")
    port = free_port()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"http://127.0.0.1:{port}/v1/metrics")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "1")
    reader = PeriodicExportingMetricReader(Collector(), export_interval_millis=3_600_000)
    provider = MeterProvider([reader])
    provider.get_meter("test").create_counter("c").add(1)
    for _ in range(3):
        reader.force_flush()
    server = HTTPServer(("127.0.0.1", port), Taking)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for _ in range(3):
        reader.force_flush()
    provider.shutdown()
    server.shutdown()
    server.server_close()

    away, back = logs.records(caplog, LOGGER)
    assert away.levelname == "WARNING"
    assert away.message.startswith("metrics are lost, trying on with later ones: ")
    assert str(port) in away.message
    assert (back.levelname, back.message) == ("INFO", "the collector takes metrics again")
