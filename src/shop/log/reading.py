"""Finding the records that belong to an order."""

from collections.abc import Sequence
from typing import Any

import msgspec

from shop.db.database import Database
from shop.db.loop_reader import LoopReader
from shop.log.way import sends_of

MOST = 500  # records of one order

_SELECT = (
    'SELECT id, topic, partition, "offset", timestamp, stored_at, type, event_id, correlation_id, '
    "origin, order_id, traceparent FROM audit WHERE "
)


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A record of the audit trail, without its key and value."""

    id: int
    topic: str
    partition: int
    offset: int
    timestamp: int
    stored_at: int
    type: str | None
    event_id: str
    correlation_id: str
    origin: str
    order_id: str | None
    traceparent: str | None

    @property
    def time(self) -> int:
        """Milliseconds since the epoch: the record's own, else when it was stored."""
        return self.timestamp if self.timestamp >= 0 else self.stored_at


class AuditReader:
    """Belongs to one event loop. Raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._reader = LoopReader(database)
        self.close = self._reader.close

    async def of_order(self, order_id: str) -> tuple[list[Kept], bool]:
        """The records that name the order, and those of the same origins that name no other; in
        the order of arrival. Whether there are more than MOST, which are left out."""
        named = await self._rows("order_id = :order_id", {"order_id": order_id})
        names = {f"o{number}": o for number, o in enumerate(sorted({r.origin for r in named}))}
        if not names:
            return [], False
        among = ", ".join(f":{name}" for name in names)
        related = await self._rows(f"origin IN ({among})", names)
        found = {record.id: record for record in [*named, *related]}
        own = _without_others(sorted(found.values(), key=lambda r: r.id), order_id)
        return own[:MOST], len(own) > MOST or max(len(named), len(related)) > MOST

    async def _rows(self, condition: str, values: dict[str, Any]) -> list[Kept]:
        query = f"{_SELECT}{condition} ORDER BY id LIMIT :most"
        rows = await self._reader.by_key(query, values | {"most": MOST + 1})
        return [Kept(*row) for row in rows]


def _without_others(records: Sequence[Kept], order_id: str) -> list[Kept]:
    """A client may begin a correlation id with that of an earlier order: the two then have one
    origin. A record that names no order belongs to that of the nearest one on its way."""
    orders = {record.correlation_id: record.order_id for record in records if record.order_id}

    def belongs(record: Kept) -> bool:
        named = (orders[send] for send in sends_of(record.correlation_id) if send in orders)
        return (record.order_id or next(named, order_id)) == order_id

    return [record for record in records if belongs(record)]
