"""Reading a service's database from an event loop, where that is fastest."""

import asyncio
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text

from shop.db.availability import READ
from shop.db.changes import DataVersion
from shop.db.database import Database
from shop.kafka.errors import StoreUnavailable

BUSY_S = 0.5  # the loop is held that long at most; readers of a WAL hardly ever wait
SWEEP_S = 1.0
DEAF_S = 0.05  # between two looks where no notices come
IDLE_S = 10.0


class LoopReader:
    """Belongs to one event loop. Queries take `:name` parameters; every one raises
    StoreUnavailable.

    On SQLite reads by key run on the loop through one connection: a few microseconds, where a
    thread would cost a hundred. A list may be long and runs in a thread, as all do on PostgreSQL.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._path = database.path
        self._connection: sqlite3.Connection | None = None
        self._version: object = None
        self._notices = DataVersion(database)  # for PostgreSQL
        self._asked_at = self._looked_at = self._connect_at = 0.0
        self._resting: asyncio.TimerHandle | None = None

    async def by_key(self, query: str, values: Mapping[str, Any]) -> Sequence[Any]:
        """The rows of a query that an index answers at once."""
        if self._path is not None:
            return self._on_loop(query, values)
        return await asyncio.to_thread(self._in_thread, query, values)

    async def list(self, query: str, values: Mapping[str, Any]) -> Sequence[Any]:
        """The rows of a query that may take a while."""
        return await asyncio.to_thread(self._in_thread, query, values)

    async def changed(self) -> bool:
        """Whether anybody has committed since this was last asked, for some microseconds. On
        PostgreSQL it is also yes every SWEEP_S, since a notice can be missed."""
        if self._path is None:
            return await self._notified()
        ((version,),) = self._on_loop("PRAGMA data_version", {})
        before, self._version = self._version, version
        return bool(version != before)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._notices.close()

    async def _notified(self) -> bool:
        now = self._asked_at = time.monotonic()
        changed = False
        if self._notices.connected:
            changed = self._notices.changed()
        elif now >= self._connect_at:
            changed = await asyncio.to_thread(self._notices.changed)
            if not self._notices.connected:  # a server that lets nobody listen, maybe
                self._connect_at = now + SWEEP_S
            elif self._resting is None:
                self._rest_when_idle()
        if changed or now - self._looked_at > (SWEEP_S if self._notices.connected else DEAF_S):
            self._looked_at = now
            return True
        return False

    def _rest_when_idle(self) -> None:
        """Give the connection back when nobody asks any more: the server would keep all notices
        for it, and at last have no room for more."""
        if time.monotonic() - self._asked_at < IDLE_S:
            loop = asyncio.get_running_loop()
            self._resting = loop.call_later(IDLE_S, self._rest_when_idle)
        else:
            self._resting = None
            self._notices.close()

    def _on_loop(self, query: str, values: Mapping[str, Any]) -> Sequence[Any]:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    str(self._path), timeout=BUSY_S, isolation_level=None
                )
                self._connection.execute("PRAGMA query_only = ON")
            rows = self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self.close()
            unavailable = StoreUnavailable(f"database {self._database.shown}: {error}")
            self._database.availability.failed(READ, unavailable)
            raise unavailable from error
        self._database.availability.worked(READ)
        return rows

    def _in_thread(self, query: str, values: Mapping[str, Any]) -> Sequence[Any]:
        with self._database.read() as connection:
            return connection.execute(text(query), values).fetchall()
