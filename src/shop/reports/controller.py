"""The routes of reports: validate, one transaction, answer."""

import asyncio
from enum import StrEnum
from typing import Annotated, Any

from litestar import Controller, MediaType, Request, Response, get, post
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.params import PathParameter, QueryParameter

from shop.http import context
from shop.http.body import JsonResponse
from shop.http.guard import admins_only
from shop.http.idempotency import IdempotencyKey
from shop.http.moment import moment
from shop.http.problems import ProblemError, documented
from shop.reports.files import ReportFiles, file_name
from shop.reports.page import security_policy
from shop.reports.reading import RunReader, RunView, State
from shop.reports.requests import TITLE, Run, RunDesk, id_of_run, run_request

_LOCATION = ResponseHeader(
    name="Location", description="Where its progress is.", documentation_only=True
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-cache",
    "Vary": "Accept",
}


class Format(StrEnum):
    TEXT = "text"
    HTML = "html"


class ReportController(Controller):
    path = "/reports"
    tags = ("reports",)

    @post(
        status_code=202,
        guards=[admins_only],
        response_headers=[_LOCATION],
        responses=documented(401, 409, 503),
    )
    async def ask(
        self,
        request: Request[Any, Any, Any],
        run_desk: NamedDependency[RunDesk],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[RunView]:
        """Ask for a report of every user: 202 as soon as the request is safe, whether Kafka is
        there or not."""
        run = await _take(request, run_desk, idempotency_key)
        context.correlate(request.scope, run.correlation_id)
        view = RunView(run.id, State.REQUESTED, run.correlation_id, moment(run.requested_at))
        return JsonResponse(view, status_code=202, headers={"Location": f"/reports/{run.id}"})

    @get("/{run_id:str}", responses=documented(404, 503))
    async def progress(
        self, run_id: Annotated[str, PathParameter()], run_reader: NamedDependency[RunReader]
    ) -> RunView:
        """How far it is."""
        run = await run_reader.get(run_id)
        if run is None:
            raise ProblemError(404, "No reports were asked for under this id.")
        return run


@get(
    "/admin/generate-reports",
    guards=[admins_only],
    media_type=MediaType.TEXT,
    tags=("reports",),
    responses=documented(401, 503),
)
async def ask_by_query(request: Request[Any, Any, Any], run_desk: NamedDependency[RunDesk]) -> str:
    """The form the Java system's callers use: a new request each time."""
    await _take(request, run_desk, None)
    return "Report requests generated"


@get(
    "/users/{uuid:str}/report",
    media_type=MediaType.TEXT,
    tags=("reports",),
    responses=documented(404),
)
async def report_of_user(
    request: Request[Any, Any, Any],
    uuid: Annotated[str, PathParameter()],
    report_files: NamedDependency[ReportFiles],
    format: Annotated[
        Format | None,
        QueryParameter(description="Else by the header Accept; text is preferred."),
    ] = None,
) -> Response[str]:
    """The newest report of a user, as text/plain or text/html."""
    if format is None:
        best = request.accept.best_match([MediaType.TEXT, MediaType.HTML])
        format = Format.HTML if best == MediaType.HTML else Format.TEXT
    suffix = ".html" if format is Format.HTML else ".txt"
    report = await asyncio.to_thread(report_files.read, file_name(uuid), suffix)
    if report is None:
        raise ProblemError(404, "There is no report of this user.")
    if format is Format.TEXT:
        return Response(report, media_type=MediaType.TEXT, headers=_HEADERS)
    headers = _HEADERS | {"Content-Security-Policy": security_policy(report)}
    return Response(report, media_type=MediaType.HTML, headers=headers)


async def _take(request: Request[Any, Any, Any], desk: RunDesk, key: str | None) -> Run:
    id_ = id_of_run(key)
    return await desk.take(
        run_request(
            id_,
            correlation_id=context.correlation_id(request.scope, TITLE, id_),
            repeatable=key is not None,
            traceparent=context.traceparent(request.scope),
        )
    )
