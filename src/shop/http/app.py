"""The HTTP application: what every route has in common. Routes come as plugins, one per service."""

from collections.abc import Sequence
from typing import Any

from litestar import Litestar, Request
from litestar.datastructures import State
from litestar.plugins import PluginProtocol
from litestar.types import ASGIApp, Receive, Scope, Send
from opentelemetry import trace

from shop.http import problems
from shop.http.body import JsonRequest, JsonResponse
from shop.http.context import HEADER, RequestContext, configured_tracer
from shop.http.guard import TOKEN
from shop.http.metrics import HttpMetrics
from shop.http.schema import ExactTypes, openapi_config
from shop.kafka import correlation

MAX_BODY = 65_536  # bytes


def create_app(
    *services: PluginProtocol,
    max_body: int = MAX_BODY,
    admin_token: str | None = None,
    tracer: trace.Tracer | None = None,
    metrics: HttpMetrics | None = None,
) -> Litestar:
    """The application of these services' routes.

    Built without an event loop. `admin_token` closes the routes guarded by admins_only. Requests
    are traced by `tracer`, else by the provider that is set up in this process at this time, if
    there is one; and measured by `metrics`."""
    app = Litestar(
        plugins=[*services, ExactTypes()],
        exception_handlers={Exception: problems.answer, 500: problems.answer},
        request_class=JsonRequest,
        response_class=JsonResponse,
        request_max_body_size=max_body,
        openapi_config=openapi_config(),
        state=State({TOKEN: admin_token}),
        logging_config=None,
        debug=False,
    )
    # Around everything, as Litestar puts its own OpenTelemetry middleware: its `middleware` list
    # does not see requests that match no route.
    handler: ASGIApp
    handler = RequestContext(app.asgi_handler, _refuse, tracer or configured_tracer())
    app.asgi_handler = metrics.measured(handler) if metrics else handler
    return app


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    request: Request[Any, Any, Any] = Request(scope, receive, send)
    error = problems.invalid(problems.FieldError(parameter=HEADER, detail=correlation.ALLOWED))
    response = problems.answer(request, error).to_asgi_response(app=None, request=request)
    await response(scope, receive, send)


def stop_waiting(app: Litestar) -> None:
    """Answer at once what is only waiting, so that a server can stop: calls what the services have
    put into the application's state under "stopping"."""
    callbacks: Sequence[Any] = app.state.get("stopping", ())
    for callback in callbacks:
        callback()
