"""Errors as clients see them: RFC 9457 problem details, whatever went wrong."""

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec

from shop.http import context
from shop.kafka.errors import StoreUnavailable

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:shop:problem:"
RETRY_AFTER_S = "1"

_encoder = msgspec.json.Encoder()


class FieldError(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is wrong with one part of a request: a JSON pointer into the body, or a parameter."""

    pointer: str | None = None
    parameter: str | None = None
    detail: str


class Problem(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    correlation_id: str
    errors: Sequence[FieldError] | None = None


class ProblemError(Exception):
    """Raise it to answer a request with a problem. `kind` completes the problem's type; without
    one the type is about:blank and the title the status's own phrase."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str | None = None,
        errors: Sequence[FieldError] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.errors = errors
        self.headers = dict(headers or {})


def invalid(*errors: FieldError) -> ProblemError:
    """A 400 that names each field or parameter that is wrong."""
    detail = "; ".join(f"{_name(error)}: {error.detail}" for error in errors)
    return ProblemError(400, detail, kind="invalid-request", errors=errors)


def documented(*statuses: int) -> dict[int, ResponseSpec]:
    """For a handler's `responses`: the problems it may answer with beside those all have."""
    return {
        status: ResponseSpec(
            Problem,
            media_type=MEDIA_TYPE,
            description=HTTPStatus(status).phrase,
            generate_examples=False,
        )
        for status in (400, *statuses, 500)
    }


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The exception handler of the whole application."""
    problem = _problem_of(error)
    details = Problem(
        type=TYPE + problem.kind if problem.kind else "about:blank",
        title=(problem.kind or HTTPStatus(problem.status).phrase).replace("-", " ").capitalize(),
        status=problem.status,
        detail=problem.detail,
        instance=quote(request.scope["path"]),
        correlation_id=context.correlation_id(request.scope),
        errors=problem.errors,
    )
    if problem.status >= 500:
        where = f"{request.scope['method']} {request.scope['path']!r}"
        if problem.status == 500:
            log.error("%s: 500", where, exc_info=error)
        else:  # what is away is told once, by who misses it; its client is to try again
            log.info("%s: %d: %s", where, problem.status, error)
    return Response(
        _encoder.encode(details),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=problem.headers,
    )


def _problem_of(error: Exception) -> ProblemError:
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, ValidationException):
        return _parameters(error)
    if isinstance(error, HTTPException) and error.status_code < 500:
        return _litestars(error)
    if isinstance(error, StoreUnavailable):
        return ProblemError(
            503,
            "The database cannot be reached now. Try again.",
            kind="database-unavailable",
            headers={"Retry-After": RETRY_AFTER_S},
        )
    return ProblemError(500, "Something failed here; the correlation id finds it in the logs.")


def _litestars(error: HTTPException) -> ProblemError:
    headers = {name: value for name, value in (error.headers or {}).items() if value}
    return ProblemError(error.status_code, error.detail, headers=headers)


def _parameters(error: ValidationException) -> ProblemError:
    """Litestar's validation of parameters: a list of {key, message, source}."""
    extra = error.extra if isinstance(error.extra, list) else []
    errors = []
    for entry in extra:
        name, detail = entry.get("key", ""), readable(entry.get("message", "is not valid"))
        if name == "data":
            errors.append(FieldError(pointer="#", detail="a JSON body is required"))
            continue
        if entry.get("source") == "header":
            name = name.replace("_", "-").title()
        errors.append(FieldError(parameter=name, detail=detail))
    if errors:
        return invalid(*errors)
    missing = re.search(r"required \w+ parameter '([\w-]+)'", error.detail)
    if missing:
        return invalid(FieldError(parameter=missing[1], detail="is required"))
    return ProblemError(400, error.detail, kind="invalid-request")


def readable(message: str) -> str:
    """A message of msgspec without its path and without Python's names."""
    message = message.partition(" - at ")[0]
    if message.startswith("Expected `str` matching regex"):
        return "does not have the form that /schema gives for it"
    message = re.sub(r"^Expected `\w+` ([<>])", r"must be \1", message)
    return message[:1].lower() + message[1:]


def _name(error: FieldError) -> str:
    return error.parameter or (error.pointer or "")[2:] or "body"
