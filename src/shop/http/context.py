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
from opentelemetry import context, trace

from shop.kafka import correlation
from shop.kafka.tracing import sampled, span_of
from shop.tracing.begin import begin_with, failed, share
from shop.tracing.remote import Shared

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
        self._begin = begin_with(tracer) if tracer else None

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
                more = value.decode("latin-1")  # a header that may come in parts
                request.tracestate = f"{request.tracestate},{more}" if request.tracestate else more

        async def send_correlated(message: Message) -> None:
            if message["type"] == "http.response.start":
                mark = correlation_id(scope).encode("utf-8")
                message["headers"] = [*message["headers"], (b"x-correlation-id", mark)]
            await send(message)

        if self._begin is None or self._is_untraced(request, scope["path"]):
            await app(scope, receive, send_correlated)
            return
        # Its parent is the client's span, else its sampling is the SDK's.
        sender = request.traceparent
        above = span_of(sender, request.tracestate) if sender else None
        shared, own = _of_requests(scope["method"], *_place(scope)), {"url.path": scope["path"]}
        span = self._begin(scope["method"], above, trace.SpanKind.SERVER, shared, own)
        if span.is_recording():
            await _traced(span, app, scope, receive, send_correlated)
        else:
            await app(scope, receive, send_correlated)

    def _is_untraced(self, request: _Request, path: str) -> bool:
        """What looks after the process asks often, and nobody asks what became of it."""
        if request.traceparent:
            return not sampled(request.traceparent)
        return path.startswith("/health") or path == "/metrics"


async def _traced(span: trace.Span, app: ASGIApp, scope: Any, receive: Receive, send: Send) -> None:
    async def send_traced(message: Message) -> None:
        if message["type"] == "http.response.start":
            _describe(span, scope, message["status"])
        await send(message)

    token = context.attach(trace.set_span_in_context(span))
    try:
        await app(scope, receive, send_traced)
    except Exception as error:
        failed(span, error)
        raise
    finally:
        context.detach(token)
        span.end()


def route_of(scope: Any) -> str | None:
    """The template of the path that a request matched, None before and unless it did."""
    template = scope.get("path_template")
    return _without_types(template) if template else None


@lru_cache
def _without_types(template: str) -> str:
    return re.sub(r":\w+}", "}", template)


def _place(scope: Any) -> tuple[str, str, int]:
    """Scheme and address that a request came to."""
    return scope["scheme"], *(scope.get("server") or ("", 0))


@lru_cache(maxsize=1000)
def _of_requests(
    method: str, scheme: str, host: str, port: int, route: str | None = None, status: int = 0
) -> Shared:
    """What the spans of these requests have in common; route and status are known at the end."""
    shared = Shared({"http.request.method": method, "url.scheme": scheme})
    if host:
        shared["server.address"], shared["server.port"] = host, port
    if route:
        shared["http.route"] = route
    if status:
        shared["http.response.status_code"] = status
    if status >= 500:
        shared["error.type"] = str(status)
    return shared


def _describe(span: trace.Span, scope: Any, status: int) -> None:
    method, route = scope["method"], route_of(scope)
    if route:
        span.update_name(f"{method} {route}")
    share(span, _of_requests(method, *_place(scope), route, status))
    span.set_attribute("shop.correlation_id", correlation_id(scope))
    if status >= 500:
        span.set_status(trace.StatusCode.ERROR)
