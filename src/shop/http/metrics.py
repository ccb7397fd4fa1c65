"""Requests as metrics: rate, errors and duration by route, as semconv names them."""

import time
from collections.abc import Callable
from typing import Any, TypeAlias

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from opentelemetry.metrics import Meter

from shop.http.context import route_of
from shop.http.guard import admins_only
from shop.http.service import ServiceApi

_METHODS = {
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
}  # fmt: skip
_DURATIONS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

# The metrics of this process in the text format that an Accept header asks for, and its media type.
Page: TypeAlias = Callable[[str], tuple[bytes, str]]


class HttpMetrics:
    def __init__(self, meter: Meter) -> None:
        self._duration = meter.create_histogram(
            "http.server.request.duration", "s", "From a request until its answer was sent",
            explicit_bucket_boundaries_advisory=_DURATIONS_S,
        )  # fmt: skip

    def measured(self, app: ASGIApp) -> ASGIApp:
        """The same application, every request of which is measured."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != ScopeType.HTTP:
                await app(scope, receive, send)
                return
            status: int | None = None

            async def send_seen(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            began = time.perf_counter()
            try:
                await app(scope, receive, send_seen)
            finally:
                self._answered(scope, status, time.perf_counter() - began)

        return answer

    def _answered(self, scope: Any, status: int | None, seconds: float) -> None:
        """No status: the client has gone before there was one."""
        method = scope["method"]
        attributes = {"http.request.method": method if method in _METHODS else "_OTHER"}
        if route := route_of(scope):
            attributes["http.route"] = route
        if status is not None:
            attributes["http.response.status_code"] = status
        self._duration.record(seconds, attributes)


class Scrape:
    """What the route of the metrics needs."""

    def __init__(self, page: Page) -> None:
        self.page = page


@get("/metrics", guards=[admins_only], include_in_schema=False, sync_to_thread=True)
def metrics(request: Request[Any, Any, Any], scrape: NamedDependency[Scrape]) -> Response[bytes]:
    body, media_type = scrape.page(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": media_type})  # it names its charset


def metrics_api(page: Page) -> ServiceApi:
    """GET /metrics. Like all routes for those who run the shop it asks for the admin token as soon
    as one is set."""
    return ServiceApi([metrics], {"scrape": Scrape(page)})
