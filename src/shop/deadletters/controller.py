"""The routes of dead letters, for those who run the shop."""

import asyncio
from collections.abc import Collection
from typing import Annotated, Any
from urllib.parse import urlencode

from litestar import Controller, Request, Response, delete, get, post
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter, QueryParameter

from shop.deadletters.choosing import Choice
from shop.deadletters.contract import (
    LONGEST,
    LONGEST_AGE,
    NAME,
    TEXT,
    Discarded,
    LetterPage,
    NewRedrive,
)
from shop.deadletters.destinations import ALL_GROUPS
from shop.deadletters.discarding import Discards
from shop.deadletters.model import State
from shop.deadletters.reading import LetterDetail, LetterReader, Position
from shop.deadletters.redrives import Redrives, RedriveView
from shop.http.body import JsonResponse
from shop.http.guard import admins_only
from shop.http.idempotency import IdempotencyKey
from shop.http.paging import cursor_of, position_of
from shop.http.problems import FieldError, ProblemError, documented, invalid

MOST_IDS = 200  # in a URL

_LOCATION = ResponseHeader(
    name="Location", description="Where its progress is.", documentation_only=True
)
_By = Annotated[str, QueryParameter(pattern=NAME, description="Who does it.")]
_KNOWN = frozenset(
    ("ids", "topic", "group", "exception", "olderThan", "newerThan", "by", "reason", "dryRun")
)
_Reason = Annotated[str | None, QueryParameter(max_length=1000, pattern=TEXT)]
_Age = Annotated[
    float | None,
    QueryParameter(
        ge=0,
        le=LONGEST_AGE,
        description="Seconds since it last failed.",
        schema_extra={"minimum": 0},  # Litestar leaves a bound of 0 out
    ),
]


def asked_for(
    ids: Annotated[list[str] | None, QueryParameter(max_items=MOST_IDS)] = None,
    topic: Annotated[str | None, QueryParameter(max_length=LONGEST, pattern=TEXT)] = None,
    group: Annotated[str | None, QueryParameter(max_length=LONGEST, pattern=TEXT)] = None,
    exception: Annotated[
        str | None,
        QueryParameter(max_length=LONGEST, pattern=TEXT, description="A part of its name."),
    ] = None,
    olderThan: _Age = None,
    newerThan: _Age = None,
) -> Choice:
    """What the parameters of a URL choose; an error names one as it is named here."""
    if any("\0" in id_ for id_ in ids or ()):
        raise invalid(FieldError(parameter="ids", detail="is no letter's id"))
    return Choice(
        ids=tuple(ids or ()),
        topic=topic,
        group=group,
        exception=exception,
        older_than=olderThan,
        newer_than=newerThan,
    )


class LetterController(Controller):
    path = "/deadletters"
    tags = ("dead letters",)
    guards = (admins_only,)
    dependencies = {"choice": Provide(asked_for, sync_to_thread=False)}  # noqa: RUF012 - Litestar's

    @get(responses=documented(401, 503))
    async def newest(
        self,
        letters: NamedDependency[LetterReader],
        choice: NamedDependency[Choice],
        in_state: Annotated[str | None, QueryParameter(name="state", enum=list(State))] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=200)] = 50,
        cursor: Annotated[
            str | None, QueryParameter(description="From `next` of the page before.")
        ] = None,
    ) -> LetterPage:
        """The newest failure first, page by page; keys are shortened."""
        state = _state(in_state)
        page, more = await letters.newest(choice, state, limit, position_of(cursor, Position))
        if more is None:
            return LetterPage(page)
        asked = {
            "ids": choice.ids or None,
            "topic": choice.topic,
            "group": choice.group,
            "exception": choice.exception,
            "olderThan": choice.older_than,
            "newerThan": choice.newer_than,
            "state": in_state,
            "limit": limit,
            "cursor": cursor_of(more),
        }
        given = {name: value for name, value in asked.items() if value is not None}
        return LetterPage(page, f"/deadletters?{urlencode(given, doseq=True)}")

    @get("/{letter_id:str}", responses=documented(401, 404, 503))
    async def show(
        self,
        letter_id: Annotated[str, PathParameter()],
        letters: NamedDependency[LetterReader],
    ) -> LetterDetail:
        """One letter: its record byte by byte, and what happened to it."""
        letter = await letters.get(letter_id)
        if letter is None:
            raise ProblemError(404, "There is no letter with this id.")
        return letter

    @post(
        "/redrive",
        status_code=202,
        response_headers=[_LOCATION],
        responses={
            **documented(401, 413, 415, 422, 503),
            200: ResponseSpec(RedriveView, description="A dry run", generate_examples=False),
        },
    )
    async def redrive(
        self,
        data: JSONBody[NewRedrive],
        redrives: NamedDependency[Redrives],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[RedriveView]:
        """202 as soon as the letters are queued. Each then goes, once, to the group that failed;
        where nobody told which one, to all groups of its topic. 422 where that group does not read
        the topic, or is not there, and `toGroup` names none that does."""
        redrive = data.redrive
        _say_something(redrive.choice)
        known = redrives.destinations
        _must_be_one_of(known.topics, redrive.to, "#/to")
        _must_be_one_of([*known.read_by, ALL_GROUPS], redrive.to_group, "#/toGroup")
        if data.dry_run:
            return JsonResponse(await asyncio.to_thread(redrives.dry_run, redrive), status_code=200)
        view = await asyncio.to_thread(redrives.take, redrive, idempotency_key)
        headers = {"Location": f"/deadletters/redrives/{view.id}"}
        return JsonResponse(view, status_code=202, headers=headers)

    @get("/redrives/{redrive_id:str}", responses=documented(401, 404, 503))
    async def progress(
        self,
        redrive_id: Annotated[str, PathParameter()],
        redrives: NamedDependency[Redrives],
    ) -> RedriveView:
        """How far a redrive is."""
        view = await redrives.progress(redrive_id)
        if view is None:
            raise ProblemError(404, "There is no redrive with this id.")
        return view

    @delete("/{letter_id:str}", status_code=204, responses=documented(401, 404, 409, 503))
    async def discard(
        self,
        letter_id: Annotated[str, PathParameter()],
        discards: NamedDependency[Discards],
        by: _By,
        reason: _Reason = None,
    ) -> None:
        """Discard a letter: it stays to be looked at. What its group holds back behind it stays
        held back, until those letters are redriven or discarded too."""
        if "\0" in letter_id:
            raise ProblemError(404, "There is no letter with this id.")
        await asyncio.to_thread(discards.one, letter_id, by, reason)

    @delete(status_code=200, responses=documented(401, 503))
    async def discard_all(
        self,
        request: Request[Any, Any, Any],
        discards: NamedDependency[Discards],
        choice: NamedDependency[Choice],
        by: _By,
        reason: _Reason = None,
        dryRun: Annotated[bool, QueryParameter()] = False,
    ) -> Discarded:
        """Discard the letters chosen that are not settled yet. A parameter that is not known is
        refused: without it, others would be discarded than meant."""
        _know_all(request)
        _say_something(choice)
        if dryRun:
            return Discarded(*await asyncio.to_thread(discards.count, choice), dry_run=True)
        return Discarded(*await asyncio.to_thread(discards.all, choice, by, reason), dry_run=False)


def _state(given: str | None) -> State | None:
    """Litestar would name the parameter as Python does, where `state` is its own."""
    if given is not None and given not in list(State):
        raise invalid(FieldError(parameter="state", detail=f"is none of {', '.join(State)}"))
    return None if given is None else State(given)


def _must_be_one_of(known: Collection[str], given: str | None, pointer: str) -> None:
    if given is not None and given not in known:
        raise invalid(FieldError(pointer=pointer, detail=f"is none of {', '.join(known)}"))


def _say_something(choice: Choice) -> None:
    if not choice.says_something:
        raise ProblemError(
            400,
            "Say which letters: ids, topic, group, exception, olderThan or newerThan; "
            "olderThan 0 is all of them.",
            kind="invalid-request",
        )


def _know_all(request: Request[Any, Any, Any]) -> None:
    unknown = sorted(set(request.query_params) - _KNOWN)
    if unknown:
        known = ", ".join(sorted(_KNOWN))
        raise ProblemError(400, f"There is no parameter {unknown[0]!r:.60}; there are {known}.")
