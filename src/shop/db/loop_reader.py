"""Reading a service's database from an event loop, where that is fastest."""

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text

from shop.db.database import Database
from shop.kafka.errors import StoreUnavailable

BUSY_S = 0.5  # the loop is held that long at most; readers of a WAL hardly ever wait


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

    @property
    def knows_changes(self) -> bool:
        """Whether `changed` tells, for microseconds, that there is nothing new to read."""
        return self._path is not None

    async def by_key(self, query: str, values: Mapping[str, Any]) -> Sequence[Any]:
        """The rows of a query that an index answers at once."""
        if self._path is not None:
            return self._on_loop(query, values)
        return await asyncio.to_thread(self._in_thread, query, values)

    async def list(self, query: str, values: Mapping[str, Any]) -> Sequence[Any]:
        """The rows of a query that may take a while."""
        return await asyncio.to_thread(self._in_thread, query, values)

    def changed(self) -> bool:
        """Whether anybody has committed since this was last asked; on PostgreSQL always yes."""
        if self._path is None:
            return True
        ((version,),) = self._on_loop("PRAGMA data_version", {})
        before, self._version = self._version, version
        return bool(version != before)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _on_loop(self, query: str, values: Mapping[str, Any]) -> Sequence[Any]:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    str(self._path), timeout=BUSY_S, isolation_level=None
                )
                self._connection.execute("PRAGMA query_only = ON")
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self.close()
            raise StoreUnavailable(f"database {self._database.name}: {error}") from error

    def _in_thread(self, query: str, values: Mapping[str, Any]) -> Sequence[Any]:
        with self._database.read() as connection:
            return connection.execute(text(query), values).fetchall()
