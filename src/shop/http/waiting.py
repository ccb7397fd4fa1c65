"""Waiting for decisions: one poller for all who wait, and only while somebody does."""

import asyncio
import logging
from collections.abc import Sequence
from itertools import islice

from shop.kafka.errors import StoreUnavailable
from shop.orders.reading import OrderReader, OrderView

log = logging.getLogger(__name__)

POLL_S = 0.002  # of SQLite's data_version, two microseconds
POLL_SERVER_S = 0.05  # of a database server, a query
RETRY_S = 0.5
CHUNK = 500  # orders in one query

Waiting = asyncio.Future[OrderView | None]


class Decisions:
    """Belongs to one event loop."""

    def __init__(self, reader: OrderReader) -> None:
        self._reader = reader
        self._every = POLL_S if reader.knows_changes else POLL_SERVER_S
        self._waiting: dict[str, set[Waiting]] = {}
        self._new: list[str] = []
        self._poller: asyncio.Task[None] | None = None
        self._stopped = False

    async def of(self, order_id: str, seconds: float) -> OrderView | None:
        """The order as soon as it is decided. None when the time is over or the server stops."""
        if self._stopped:
            return None
        future: Waiting = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(order_id, set()).add(future)
        self._new.append(order_id)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return None
        finally:
            others = self._waiting.get(order_id, set())
            others.discard(future)
            if not others:
                self._waiting.pop(order_id, None)

    def __len__(self) -> int:
        """Orders that somebody waits for."""
        return len(self._waiting)

    def stop(self) -> None:
        """Let all who wait go at once, and nobody wait any more."""
        self._stopped = True
        for order_id in list(self._waiting):
            self._answer(order_id, None)

    async def _poll(self) -> None:
        while self._waiting:
            pause = self._every
            try:
                await self._look()
            except StoreUnavailable as error:
                log.warning("cannot see decisions now: %s", error)
                self._new = list(self._waiting)
                pause = RETRY_S
            await asyncio.sleep(pause)

    async def _look(self) -> None:
        """One query when something was committed; those who came since are looked for anyway."""
        new, self._new = self._new, []
        ids = iter(list(self._waiting) if self._reader.changed() else new)
        while chunk := list(islice(ids, CHUNK)):
            await self._answer_decided(chunk)

    async def _answer_decided(self, order_ids: Sequence[str]) -> None:
        for order in await self._reader.decided(order_ids):
            self._answer(order.id, order)

    def _answer(self, order_id: str, order: OrderView | None) -> None:
        for future in self._waiting.pop(order_id, ()):
            if not future.done():
                future.set_result(order)
