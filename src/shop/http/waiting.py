"""Long polling: one poller for all who wait, and only while somebody does."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

from shop.kafka.errors import StoreUnavailable

View = TypeVar("View")
View_co = TypeVar("View_co", covariant=True)

log = logging.getLogger(__name__)

POLL_S = 0.002
RETRY_S = 0.5
CHUNK = 500  # ids in one query


class Reader(Protocol[View_co]):
    """What is waited for: things that finish, by their ids. Methods raise StoreUnavailable."""

    async def changed(self) -> bool:
        """Whether anybody may have committed since this was last asked; for some microseconds."""

    async def finished(self, ids: Sequence[str], /) -> Mapping[str, View_co]:
        """Those of these that are finished, by their ids."""


class LongPoll(Generic[View]):
    """Belongs to one event loop."""

    def __init__(self, reader: Reader[View]) -> None:
        self._reader = reader
        self._waiting: dict[str, set[asyncio.Future[View | None]]] = {}
        self._new: list[str] = []
        self._poller: asyncio.Task[None] | None = None
        self._stopped = False

    async def of(self, id_: str, seconds: float) -> View | None:
        """The thing as soon as it is finished. None when the time is over or the server stops."""
        if self._stopped:
            return None
        future: asyncio.Future[View | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(id_, set()).add(future)
        self._new.append(id_)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return None
        finally:
            others = self._waiting.get(id_, set())
            others.discard(future)
            if not others:
                self._waiting.pop(id_, None)

    def __len__(self) -> int:
        """Ids that somebody waits for."""
        return len(self._waiting)

    def stop(self) -> None:
        """Let all who wait go at once, and nobody wait any more."""
        self._stopped = True
        for id_ in list(self._waiting):
            self._answer(id_, None)

    async def _poll(self) -> None:
        while self._waiting:
            pause = POLL_S
            try:
                await self._look()
            except StoreUnavailable as error:
                log.debug("cannot see what is finished now: %s", error)
                self._new = list(self._waiting)
                pause = RETRY_S
            await asyncio.sleep(pause)

    async def _look(self) -> None:
        """One query when something was committed; those who came since are looked for anyway."""
        new, self._new = self._new, []
        ids = iter(list(self._waiting) if await self._reader.changed() else new)
        while chunk := list(islice(ids, CHUNK)):
            for id_, view in (await self._reader.finished(chunk)).items():
                self._answer(id_, view)

    def _answer(self, id_: str, view: View | None) -> None:
        for future in self._waiting.pop(id_, ()):
            if not future.done():
                future.set_result(view)
