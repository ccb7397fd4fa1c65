"""Taking orders in: the order, its idempotency key and its event are committed as one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import IntegrityError

from shop.db.database import Database
from shop.db.group_commit import GroupCommit
from shop.kafka.errors import StoreUnavailable
from shop.orders.placement import Outcome, Placement, take

PATIENCE_S = 1.0  # a repeat waits this long for the first of its name
DEADLINE_S = 30.0  # an order waits this long for the database


class InFlight(Exception):
    """The first request of this key or id is still running."""


class OrderDesk:
    """Takes orders by group commit. Belongs to one event loop once it takes the first."""

    def __init__(self, database: Database) -> None:
        self._commit = GroupCommit(database, take)
        self._running: dict[tuple[str, str], asyncio.Future[None]] = {}

    async def take(self, order: Placement) -> Outcome:
        """What became of it, once that is committed. Raises InFlight and StoreUnavailable."""
        for name in order.names:
            first = self._running.get(name)
            if first is not None:
                done, _ = await asyncio.wait([first], timeout=PATIENCE_S)
                if not done:
                    raise InFlight
        with self._running_as(order):
            try:
                async with asyncio.timeout(DEADLINE_S):
                    return await self._submit(order)
            except TimeoutError:
                raise StoreUnavailable("the database did not commit in time") from None

    async def close(self) -> None:
        await self._commit.close()

    async def _submit(self, order: Placement) -> Outcome:
        try:
            return await self._commit.submit(order)
        except IntegrityError:  # PostgreSQL: another process took its key or id this moment
            return await self._commit.submit(order)

    @contextmanager
    def _running_as(self, order: Placement) -> Iterator[None]:
        names = [name for name in order.names if name not in self._running]
        finished = asyncio.get_running_loop().create_future() if names else None
        self._running.update((name, finished) for name in names if finished)
        try:
            yield
        finally:
            for name in names:
                del self._running[name]
            if finished:
                finished.set_result(None)
