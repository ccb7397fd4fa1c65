"""Reading payments and keys."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from shop.db.database import Database
from shop.db.loop_reader import LoopReader
from shop.pix.model import Status

_SELECT = (
    "SELECT identifier, source_key, target_key, amount, transferred_at, status, correlation_id "
    "FROM payment WHERE "
)


class Payment(msgspec.Struct, frozen=True, gc=False):
    """A payment under the names of the Java services. The amount is exact; one that came by the
    topic may lack anything but its identifier."""

    identifier: str
    source_key: str | None = msgspec.field(name="chaveOrigem")
    target_key: str | None = msgspec.field(name="chaveDestino")
    amount: Decimal | None = msgspec.field(name="valor")
    transferred_at: str | None = msgspec.field(name="dataTransferencia")
    status: Status


class PaymentView(Payment, frozen=True, gc=False):
    """A payment as the API shows it."""

    correlation_id: str = msgspec.field(name="correlationId")


class KeyPosition(msgspec.Struct, frozen=True, array_like=True):
    """Of a key in the list: the next page begins after it."""

    key: str

    def __post_init__(self) -> None:
        if "\0" in self.key:  # PostgreSQL takes none
            raise ValueError("no such position")


class PixReader:
    """Belongs to one event loop. Every method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._reader = LoopReader(database)
        self.changed = self._reader.changed
        self.close = self._reader.close

    async def get(self, identifier: str) -> PaymentView | None:
        if "\0" in identifier:  # PostgreSQL takes none
            return None
        query = _SELECT + "identifier = :identifier"
        rows = await self._reader.by_key(query, {"identifier": identifier})
        return _view(rows[0]) if rows else None

    async def finished(self, identifiers: Sequence[str]) -> Mapping[str, PaymentView]:
        """Those of these payments that are decided; one query."""
        names = {f"id{number}": id_ for number, id_ in enumerate(identifiers)}
        among = ", ".join(f":{name}" for name in names)
        query = f"{_SELECT} decided_at IS NOT NULL AND identifier IN ({among})"
        views = map(_view, await self._reader.by_key(query, names))
        return {view.identifier: view for view in views}

    async def keys(
        self, limit: int, after: KeyPosition | None = None
    ) -> tuple[list[str], KeyPosition | None]:
        """A page of the keys, in their order, and where the next one begins if there is one."""
        wanted = "WHERE key > :after" if after else ""
        query = f"SELECT key FROM pix_key {wanted} ORDER BY key LIMIT :most"
        values: dict[str, Any] = {"most": limit + 1} | ({"after": after.key} if after else {})
        keys = [key for (key,) in await self._reader.list(query, values)]
        more = KeyPosition(keys[limit - 1]) if len(keys) > limit else None
        return keys[:limit], more


def _view(row: Any) -> PaymentView:
    identifier, source, target, amount, transferred_at, status, correlation_id = row
    return PaymentView(
        identifier,
        source,
        target,
        None if amount is None else Decimal(amount),
        transferred_at,
        Status(status),
        correlation_id,
    )
