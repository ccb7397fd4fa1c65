"""Spans leave the process by OTLP when the standard variables ask for it, and only then."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from shop.broker import free_port
from tests.waiting import eventually


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP, as an OpenTelemetry collector does on /v1/traces."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str]] = []  # service name, span name
        super().__init__(("127.0.0.1", 0), _Receive)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Receive(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.server.spans += [(attributes["service.name"], s.name) for s in scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    yield collector
    collector.shutdown()


def serve_one_order(data: Path, **variables: str) -> None:
    """`shop serve` without any Kafka, one order, and a clean stop."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "shop.cli", "serve"],
        env=os.environ
        | {
            "SHOP_DATA_DIR": str(data),
            "SHOP_HTTP__PORT": str(port),
            "SHOP_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
            "SHOP_LOG__LEVEL": "ERROR",
        }
        | variables,
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

        def taken() -> bool:
            try:
                return client.post(
                    "/orders", json={"email": "ana@example.com", "amount": 1}
                ).is_success
            except httpx.TransportError:
                return False

        eventually(taken, "an order taken")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_spans_are_exported_when_an_endpoint_is_set(tmp_path: Path, collector: Collector) -> None:
    serve_one_order(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    assert ("shop-api", "POST /orders") in collector.spans
    assert ("shop-api", "send ECOMMERCE_NEW_ORDER") in collector.spans


@pytest.mark.parametrize(
    "off",
    [
        {"OTEL_TRACES_SAMPLER": "always_off"},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_the_standard_variables_turn_it_off(
    tmp_path: Path, collector: Collector, off: dict[str, str]
) -> None:
    serve_one_order(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, **off)
    assert collector.spans == []
