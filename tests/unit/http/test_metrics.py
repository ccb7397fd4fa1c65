"""Requests are counted by route; what is counted can be read, by those who may."""

import threading
from collections.abc import Callable, Iterator

import httpx
import pytest

from shop.health import Checks, health_api
from shop.http.app import create_app
from shop.http.metrics import metrics_api
from shop.http.server import HttpServer
from shop.metrics import Metrics
from tests.scraping import parsed, scraped
from tests.unit.http.conftest import Api
from tests.waiting import eventually

COUNT = "http_server_request_duration_seconds_count"


@pytest.fixture
def start() -> Iterator[Callable[..., str]]:
    """start(admin_token=…): the address of a measured application."""
    running: list[tuple[HttpServer, threading.Thread]] = []

    def begin(admin_token: str | None = None) -> str:
        metrics = Metrics("test")
        app = create_app(
            health_api(Checks({})), metrics_api(metrics.page),
            admin_token=admin_token, metrics=metrics.http,
        )  # fmt: skip
        server, started = HttpServer(app, port=0), threading.Event()
        thread = threading.Thread(target=server.run, args=(started.set,))
        thread.start()
        running.append((server, thread))
        assert started.wait(20)
        return f"http://127.0.0.1:{server.port}"

    yield begin
    for server, thread in running:
        server.stop()
        thread.join(20)


def test_requests_are_counted_by_method_route_and_status(start: Callable[..., str]) -> None:
    url = start()
    for path in ("/health/live", "/health/live", "/schema/no-such", "/nothing"):
        httpx.get(url + path)
    httpx.request("PURGE", f"{url}/health/live")
    httpx.post(f"{url}/health/live")
    found = eventually(
        lambda: (
            s if (s := scraped(f"{url}/metrics")).one(COUNT, http_route="/health/live") else None
        )
    )
    labels = {"http_request_method": "GET", "http_response_status_code": "200"}
    assert found.one(COUNT, http_route="/health/live", **labels) == 2
    assert found.one(COUNT, http_request_method="_OTHER") == 1
    assert found.one(COUNT, http_request_method="POST", http_response_status_code="405") == 1


def test_no_path_becomes_a_series(start: Callable[..., str]) -> None:
    url = start()
    httpx.get(f"{url}/nothing")
    httpx.request("PURGE", f"{url}/nothing")
    scraped(f"{url}/metrics")
    series = len(scraped(f"{url}/metrics"))
    with httpx.Client() as client:
        for number in range(200):
            client.get(f"{url}/nothing/{number}")
        for method in ("PROPFIND", "MKCOL", "SUBSCRIBE", "REPORT"):
            client.request(method, f"{url}/nothing")
    found = scraped(f"{url}/metrics")
    assert len(found) == series
    assert found.one(COUNT, http_request_method="GET", http_route="") == 201
    assert found.one(COUNT, http_request_method="_OTHER", http_route="") == 5


def test_the_format_is_the_one_asked_for(start: Callable[..., str]) -> None:
    url = start()
    scraped(f"{url}/metrics")
    plain = httpx.get(f"{url}/metrics")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    accept = "application/openmetrics-text; version=1.0.0"
    answer = httpx.get(f"{url}/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith(accept)
    assert answer.text.endswith("# EOF\n")
    names = parsed(answer.content, answer.headers["content-type"]).names
    assert parsed(plain.content, plain.headers["content-type"]).names == names


def test_metrics_are_for_those_with_the_admin_token_once_there_is_one(
    start: Callable[..., str],
) -> None:
    url = start(admin_token="secret")
    assert httpx.get(f"{url}/metrics").status_code == 401
    assert scraped(f"{url}/metrics", authorization="Bearer secret").one("target_info") == 1


def test_without_metrics_there_is_no_route(api: Api) -> None:
    assert api.get("/metrics").status_code == 404
