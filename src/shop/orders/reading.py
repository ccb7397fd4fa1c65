"""Reading orders."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from shop.db.database import Database
from shop.db.loop_reader import LoopReader
from shop.http.moment import moment
from shop.orders.model import Status

_SELECT = (
    "SELECT id, email, amount, status, correlation_id, created_at, decided_at FROM orders WHERE "
)


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

    def __post_init__(self) -> None:
        if "\0" in self.id or not 0 <= self.created_at < 2**63:
            raise ValueError("no such position")


class OrderReader:
    """Belongs to one event loop. Every method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._reader = LoopReader(database)
        self.changed = self._reader.changed
        self.close = self._reader.close

    async def get(self, order_id: str) -> OrderView | None:
        if "\0" in order_id:  # PostgreSQL takes none
            return None
        rows = await self._reader.by_key(_SELECT + "id = :id", {"id": order_id})
        return _view(rows[0]) if rows else None

    async def finished(self, order_ids: Sequence[str]) -> Mapping[str, OrderView]:
        """Those of these orders that are decided; one query."""
        names = {f"id{number}": id_ for number, id_ in enumerate(order_ids)}
        among = ", ".join(f":{name}" for name in names)
        query = f"{_SELECT} decided_at IS NOT NULL AND id IN ({among})"
        views = map(_view, await self._reader.by_key(query, names))
        return {view.id: view for view in views}

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
        rows = await self._reader.list(query, values)
        page = rows[:limit]
        more = Position(page[-1][5], page[-1][0]) if len(rows) > limit else None
        return [_view(row) for row in page], more


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
