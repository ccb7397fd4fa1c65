"""Reading orders, on the event loop where that is fastest."""

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import text

from shop.db.database import Database
from shop.kafka.errors import StoreUnavailable
from shop.orders.model import Status

_SELECT = (
    "SELECT id, email, amount, status, correlation_id, created_at, decided_at FROM orders WHERE "
)

_BUSY_S = 0.5  # the loop is held that long at most; readers of a WAL hardly ever wait
_LAST = 253_402_300_799_999  # milliseconds: the end of the year 9999


class OrderView(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """An order as the API shows it. The amount is exact."""

    id: str
    email: str
    amount: Decimal
    status: Status
    correlation_id: str
    created_at: datetime
    decided_at: datetime | None = None


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Of an order in the list, newest first: where the next page goes on."""

    created_at: int
    id: str


class OrderReader:
    """Belongs to one event loop. Every method raises StoreUnavailable.

    On SQLite reads by id run on the loop through one connection: a few microseconds, where a
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

    async def get(self, order_id: str) -> OrderView | None:
        if "\0" in order_id:  # PostgreSQL takes none
            return None
        rows = await self._by_key(_SELECT + "id = :id", {"id": order_id})
        return _view(rows[0]) if rows else None

    async def decided(self, order_ids: Sequence[str]) -> Iterable[OrderView]:
        """Those of these orders that are decided; one query."""
        names = {f"id{number}": id_ for number, id_ in enumerate(order_ids)}
        among = ", ".join(f":{name}" for name in names)
        query = f"{_SELECT} decided_at IS NOT NULL AND id IN ({among})"
        return map(_view, await self._by_key(query, names))

    async def newest(
        self,
        limit: int,
        *,
        email: str | None = None,
        status: Status | None = None,
        after: Position | None = None,
    ) -> tuple[list[OrderView], Position | None]:
        """A page of the list, newest first, and where the next one begins if there is one."""
        wanted = ["1 = 1"]
        values: dict[str, Any] = {"most": limit + 1}
        if email is not None:
            wanted.append("email = :email")
            values["email"] = email
        if status is not None:
            wanted.append("status = :status")
            values["status"] = status.value
        if after is not None:
            wanted.append("(created_at, id) < (:created_at, :id)")
            values |= {"created_at": after.created_at, "id": after.id}
        query = f"{_SELECT}{' AND '.join(wanted)} ORDER BY created_at DESC, id DESC LIMIT :most"
        rows = await asyncio.to_thread(self._in_thread, query, values)
        page = rows[:limit]
        more = Position(page[-1][5], page[-1][0]) if len(rows) > limit else None
        return [_view(row) for row in page], more

    def changed(self) -> bool:
        """Whether anybody has committed since this was last asked; on PostgreSQL always yes."""
        if self._path is None:
            return True
        (version,) = self._on_loop("PRAGMA data_version", {})
        before, self._version = self._version, version
        return bool(version != before)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _by_key(self, query: str, values: Mapping[str, Any]) -> Sequence[Any]:
        if self._path is not None:
            return self._on_loop(query, values)
        return await asyncio.to_thread(self._in_thread, query, values)

    def _on_loop(self, query: str, values: Mapping[str, Any]) -> Sequence[Any]:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    str(self._path), timeout=_BUSY_S, isolation_level=None
                )
                self._connection.execute("PRAGMA query_only = ON")
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self.close()
            raise StoreUnavailable(f"database {self._database.name}: {error}") from error

    def _in_thread(self, query: str, values: Mapping[str, Any]) -> Sequence[Any]:
        with self._database.read() as connection:
            return connection.execute(text(query), values).fetchall()


def _view(row: Any) -> OrderView:
    id_, email, amount, status, correlation_id, created_at, decided_at = row
    return OrderView(
        id_,
        email,
        Decimal(amount),
        Status(status),
        correlation_id,
        moment(created_at),
        None if decided_at is None else moment(decided_at),
    )


def moment(milliseconds: int) -> datetime:
    """A time of the database as it is shown."""
    return datetime.fromtimestamp(min(max(milliseconds, 0), _LAST) / 1000, UTC)
