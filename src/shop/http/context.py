"""What each request carries: its correlation id and its place in a trace.

`RequestContext` wraps the whole application, so that an answer to an unknown path has them too.
The correlation id is made when something first asks for it, at the latest for the answer's header.
"""

import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from opentelemetry import trace

from shop.kafka import correlation
from shop.kafka.tracing import below, sampled, span_of

HEADER = "X-Correlation-Id"

_KEY = "shop.request"
_TRACEPARENT = re.compile(rb"\A00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")

Refuse = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Request:
    __slots__ = ("correlation_id", "given", "traceparent", "tracestate")

    def __init__(self) -> None:
        self.given: str | None = None  # the client's correlation id
        self.correlation_id: str | None = None
        self.traceparent: str | None = None
        self.tracestate: str | None = None


def correlation_id(scope: Any, title: str = "Http", name: str | None = None) -> str:
    """The request's correlation id: begun by `title`, or the client's continued by it. `name`:
    the uuid that `title` is to show."""
    request: _Request = scope[_KEY]
    if request.correlation_id is None:
        given, begun = request.given, correlation.begin(title, name)
        made = correlation.through(given, title, name) if given else begun
        correlate(scope, made)
        return made
    return request.correlation_id


def correlate(scope: Any, correlation_id: str) -> None:
    """Give the request this correlation id: in its answer, its log lines and its span."""
    request: _Request = scope[_KEY]
    if request.correlation_id != correlation_id:
        request.correlation_id = correlation_id
        structlog.contextvars.bind_contextvars(correlation_id=correlation_id)


def traceparent(scope: Any) -> str | None:
    """The client's traceparent, if it is one. Within a recorded span the span comes before it."""
    request: _Request = scope[_KEY]
    return request.traceparent


def configured_tracer() -> trace.Tracer | None:
    """A tracer where a provider has been set up in this process, else None."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return provider.get_tracer("shop.http")


class RequestContext:
    """ASGI middleware. Without a tracer a request costs what reading two headers costs."""

    def __init__(self, app: ASGIApp, refuse: Refuse, tracer: trace.Tracer | None) -> None:
        self._app = app
        self._refuse = refuse
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        request = _Request()
        scope[_KEY] = request  # type: ignore[literal-required]
        app = self._app
        for name, value in scope["headers"]:
            if name == b"x-correlation-id":
                given = value.decode("latin-1")
                if correlation.acceptable(given):
                    request.given = given
                else:
                    app = self._refuse
            elif name == b"traceparent" and _TRACEPARENT.match(value):
                request.traceparent = value.decode("ascii")
            elif name == b"tracestate":
                request.tracestate = value.decode("latin-1")

        async def send_correlated(message: Message) -> None:
            if message["type"] == "http.response.start":
                mark = correlation_id(scope).encode("utf-8")
                message["headers"] = [*message["headers"], (b"x-correlation-id", mark)]
            await send(message)

        if self._tracer is None or self._is_untraced(request, scope["path"]):
            await app(scope, receive, send_correlated)
        else:
            await self._traced(self._tracer, request, app, scope, receive, send_correlated)

    def _is_untraced(self, request: _Request, path: str) -> bool:
        """What looks after the process asks often, and nobody asks what became of it."""
        if request.traceparent:
            return not sampled(request.traceparent)
        return path.startswith("/health") or path == "/metrics"

    async def _traced(
        self,
        tracer: trace.Tracer,
        request: _Request,
        app: ASGIApp,
        scope: Any,
        receive: Receive,
        send: Send,
    ) -> None:
        """The server span; its parent is the client's span, else its sampling is the SDK's."""
        parent = below(span_of(request.traceparent, request.tracestate))
        span = tracer.start_span(scope["method"], parent, trace.SpanKind.SERVER)
        if not span.is_recording():
            await app(scope, receive, send)
            return
        attributes = {
            "http.request.method": scope["method"],
            "url.path": scope["path"],
            "url.scheme": scope["scheme"],
        }
        if scope.get("server"):
            attributes["server.address"], attributes["server.port"] = scope["server"]
        span.set_attributes(attributes)
        with trace.use_span(span, end_on_exit=True):

            async def send_traced(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _describe(span, scope, message["status"])
                await send(message)

            await app(scope, receive, send_traced)


def route_of(scope: Any) -> str | None:
    """The template of the path that a request matched, None before and unless it did."""
    template = scope.get("path_template")
    return _without_types(template) if template else None


@lru_cache
def _without_types(template: str) -> str:
    return re.sub(r":\w+}", "}", template)


def _describe(span: trace.Span, scope: Any, status: int) -> None:
    if route := route_of(scope):
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("shop.correlation_id", correlation_id(scope))
    if status >= 500:
        span.set_attribute("error.type", str(status))
        span.set_status(trace.StatusCode.ERROR)
