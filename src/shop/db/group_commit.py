"""Group commit: requests that arrive while a transaction is being written share the next one.

While one group is written by a single thread, the next one gathers. A lone request waits for
nobody; under load a disk flush serves hundreds.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeAlias, TypeVar

from sqlalchemy import Connection

from shop.db.database import Database
from shop.kafka.errors import StoreUnavailable

Request = TypeVar("Request")
Answer = TypeVar("Answer")

Commit: TypeAlias = Callable[[Connection, Sequence[Request]], Sequence[Answer]]

MOST = 500  # requests in one transaction


class GroupCommit(Generic[Request, Answer]):
    """`execute(connection, requests)` returns an answer for each request, in their order.

    Belongs to one event loop. A group whose transaction fails is written again one by one, so a
    request fails only by its own fault; StoreUnavailable fails them all at once.
    """

    def __init__(self, database: Database, execute: Commit[Request, Answer]) -> None:
        self._database = database
        self._execute = execute
        self._waiting: list[tuple[Request, asyncio.Future[Answer]]] = []
        self._turns: asyncio.Task[None] | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"commit-{database.name}")

    async def submit(self, request: Request) -> Answer:
        """The answer, once its transaction is committed. Raises what `execute` raises for it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((request, future))
        if self._turns is None or self._turns.done():
            self._turns = loop.create_task(self._take_turns(loop))
        return await future

    async def close(self) -> None:
        """Write what waits, then stop."""
        if self._turns is not None:
            await self._turns
        self._writer.shutdown()

    async def _take_turns(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            # Without those that were given up meanwhile: their clients were told so.
            waiting = [entry for entry in self._waiting if not entry[1].done()]
            group, self._waiting = waiting[:MOST], waiting[MOST:]
            if not group:
                return
            requests = [request for request, _ in group]
            outcomes: list[Answer | Exception]
            try:
                outcomes = await loop.run_in_executor(self._writer, self._commit, requests)
            except Exception as error:  # the writer is gone
                outcomes = [error for _ in requests]
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if future.done():  # its client has gone just now
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    def _commit(self, requests: Sequence[Request]) -> list[Answer | Exception]:
        try:
            with self._database.write() as connection:
                answers = list(self._execute(connection, requests))
                if len(answers) != len(requests):
                    raise ValueError(f"{len(answers)} answers to {len(requests)} requests")
                return [*answers]
        except StoreUnavailable as error:
            return [error for _ in requests]
        except Exception as error:
            if len(requests) == 1:
                return [error]
            return [outcome for request in requests for outcome in self._commit([request])]
