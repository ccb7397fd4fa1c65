import socket
from collections.abc import Callable, Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shop.health import Checks
from shop.http.app import create_app
from shop.http.server import HttpError, HttpServer
from tests.spans import kept_spans
from tests.unit.http.conftest import Api

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    with kept_spans() as exporter:
        yield exporter


def by_name(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans.get_finished_spans()}


def test_a_request_is_a_span_and_its_send_a_child_of_it(
    start_api: Callable[..., Api], spans: InMemorySpanExporter
) -> None:
    api = start_api(tracer=trace.get_tracer("test"))
    answer = api.post({"email": "t@example.com", "amount": 1}, traceparent=f"{CLIENT}01")
    (sent,) = api.sent("t@example.com")
    api.stop()
    found = by_name(spans)
    server, send = found["POST /orders"], found["send ECOMMERCE_NEW_ORDER"]
    transaction = found["transaction orders"]
    assert transaction.parent == server.context
    assert transaction.attributes == {"db.system.name": "sqlite", "db.namespace": "orders"}
    assert server.context is not None
    assert send.context is not None
    assert server.parent is not None
    assert send.parent is not None
    assert trace.format_span_id(server.parent.span_id) == CLIENT[36:52]
    assert send.parent.span_id == server.context.span_id
    assert trace.format_span_id(send.context.span_id) in sent.headers["traceparent"]
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/orders",
        "http.response.status_code": 202,
        "url.path": "/orders",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": api.server.port,
        "shop.correlation_id": answer.headers["x-correlation-id"],
    }


def test_a_request_that_fails_is_an_error_and_the_next_one_is_not(
    start_api: Callable[..., Api], spans: InMemorySpanExporter
) -> None:
    def broken() -> str | None:
        raise OSError("disk gone")

    api = start_api(tracer=trace.get_tracer("test"), checks=Checks({"orders database": broken}))
    sampled = {"traceparent": f"{CLIENT}01"}  # nobody asks for the traces of health otherwise
    api.client.get("/health/ready", headers=sampled)
    api.client.get("/health/live", headers=sampled)
    api.stop()
    found = by_name(spans)
    failed, well = found["GET /health/ready"], found["GET /health/live"]
    assert failed.attributes is not None
    assert well.attributes is not None
    assert failed.attributes["error.type"] == "503"
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert well.attributes["http.response.status_code"] == 200
    assert "error.type" not in well.attributes
    assert well.status.status_code is trace.StatusCode.UNSET


def test_the_span_of_a_read_is_named_by_its_route(
    start_api: Callable[..., Api], spans: InMemorySpanExporter
) -> None:
    api = start_api(tracer=trace.get_tracer("test"))
    api.get("/orders/unknown")
    api.stop()
    assert "GET /orders/{order_id}" in by_name(spans)


def test_a_client_that_does_not_sample_costs_no_span_and_is_passed_on(
    start_api: Callable[..., Api], spans: InMemorySpanExporter
) -> None:
    api = start_api(tracer=trace.get_tracer("test"))
    api.post({"email": "u@example.com", "amount": 1}, traceparent=f"{CLIENT}00")
    assert api.sent("u@example.com")[0].headers["traceparent"] == f"{CLIENT}00"
    assert not spans.get_finished_spans()


@pytest.mark.parametrize("bad", ["x", CLIENT, f"{CLIENT}zz", "00-" + "0" * 32 + CLIENT[35:] + "01"])
def test_a_traceparent_that_is_none_is_left_out(api: Api, bad: str) -> None:
    email = f"bad{len(bad)}{bad[-1]}@example.com"
    api.post({"email": email, "amount": 1}, traceparent=bad)
    assert api.sent(email)[0].headers.get("traceparent") != bad


def test_a_taken_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HttpError, match=rf"cannot serve on 127.0.0.1 port {port}: .*in use"):
            HttpServer(create_app(), port=port)


def test_the_process_is_alive_and_ready(api: Api) -> None:
    assert api.get("/health/live").json() == {"status": "ok"}
    ready = api.get("/health/ready")
    assert (ready.status_code, ready.json()) == (
        200,
        {"status": "ok", "checks": {"orders database": "ok"}},
    )


def test_without_the_broker_it_is_degraded_but_ready(start_api: Callable[..., Api]) -> None:
    checks = Checks({"orders database": lambda: None}, {"broker": lambda: "no answer"})
    ready = start_api(checks=checks).get("/health/ready")
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "degraded",
        "checks": {"orders database": "ok", "broker": "no answer"},
    }


def test_without_the_database_it_is_not_ready(start_api: Callable[..., Api]) -> None:
    def broken() -> str | None:
        raise OSError("disk gone")

    ready = start_api(checks=Checks({"orders database": broken})).get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["checks"] == {"orders database": "disk gone"}
