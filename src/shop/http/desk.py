"""Taking in what clients send: committed as a group, and what is repeated at once, once."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Generic, Protocol, TypeVar

from opentelemetry import trace
from sqlalchemy.exc import IntegrityError

from shop.db.availability import WRITE
from shop.db.database import Database
from shop.db.group_commit import Commit, GroupCommit
from shop.http.problems import RETRY_AFTER_S, ProblemError
from shop.kafka.errors import StoreUnavailable
from shop.tracing.begin import begin_here, within
from shop.tracing.remote import Shared

PATIENCE_S = 1.0  # a repeat waits this long for the first of its name
DEADLINE_S = 30.0  # a request waits this long for the database

_UNTRACED: AbstractContextManager[None] = nullcontext()


class Named(Protocol):
    @property
    def names(self) -> Iterable[object]:
        """What makes this a repeat: of two requests that share a name, the first goes first."""


Request = TypeVar("Request", bound=Named)
Answer = TypeVar("Answer")


class InFlight(ProblemError):
    """The first request of this name is still running."""

    def __init__(self) -> None:
        super().__init__(
            409,
            "The first request with this key or id is still running.",
            kind="request-in-flight",
            headers={"Retry-After": RETRY_AFTER_S},
        )


class Desk(Generic[Request, Answer]):
    """Takes requests by group commit; `execute` is GroupCommit's. Belongs to one event loop once
    it takes the first."""

    def __init__(self, database: Database, execute: Commit[Request, Answer]) -> None:
        self._commit = GroupCommit(database, execute)
        self._availability = database.availability
        self._running: dict[object, asyncio.Future[None]] = {}
        self._span_name = f"transaction {database.name}"
        system = "sqlite" if database.path else "postgresql"
        self._shared = Shared({"db.system.name": system, "db.namespace": database.name})

    async def take(self, request: Request) -> Answer:
        """What became of it, once that is committed. Raises InFlight and StoreUnavailable."""
        for name in request.names:
            first = self._running.get(name)
            if first is not None:
                done, _ = await asyncio.wait([first], timeout=PATIENCE_S)
                if not done:
                    raise InFlight
        with self._running_as(request):
            try:
                async with asyncio.timeout(DEADLINE_S):
                    with self._traced():
                        return await self._submit(request)
            except TimeoutError:
                late = StoreUnavailable("the database did not commit in time")
                self._availability.failed(WRITE, late)
                raise late from None

    async def close(self) -> None:
        await self._commit.close()

    def _traced(self) -> AbstractContextManager[object]:
        """The span of a request's transaction, the wait for it included, where the request's own
        is recorded."""
        request = trace.get_current_span()
        if not request.is_recording():
            return _UNTRACED
        begin = begin_here("shop.http")
        return within(begin(self._span_name, request, trace.SpanKind.CLIENT, self._shared, {}))

    async def _submit(self, request: Request) -> Answer:
        try:
            return await self._commit.submit(request)
        except IntegrityError:  # PostgreSQL: another process took its name this moment
            return await self._commit.submit(request)

    @contextmanager
    def _running_as(self, request: Request) -> Iterator[None]:
        names = [name for name in request.names if name not in self._running]
        finished = asyncio.get_running_loop().create_future() if names else None
        self._running.update((name, finished) for name in names if finished)
        try:
            yield
        finally:
            for name in names:
                del self._running[name]
            if finished:
                finished.set_result(None)
