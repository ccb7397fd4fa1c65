"""An order that is to be taken, and the transaction that takes a group of them."""

import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, select

from shop.db.outbox import write_outbox
from shop.events import Order
from shop.kafka.ids import time_ordered_id
from shop.kafka.outbound import OutboundRecord, outbound
from shop.orders.model import IdempotencyKey, OrderRow, Status
from shop.topics import NEW_ORDER

_orders: Any = OrderRow.__table__
_keys: Any = IdempotencyKey.__table__


class Placement(msgspec.Struct, frozen=True, gc=False):
    """An order to be taken, its record encoded. `names` tells what makes it a repeat."""

    order_id: str
    id_is_clients: bool
    email: str
    amount: Decimal
    correlation_id: str
    created_at: int
    record: OutboundRecord
    key: str | None = None

    @property
    def fingerprint(self) -> str:
        """Of what was asked for. The same amount in another notation is the same request."""
        asked = [self.email, str(self.amount), self.order_id if self.id_is_clients else None]
        return blake2b(msgspec.json.encode(asked), digest_size=16).hexdigest()

    @property
    def names(self) -> Iterator[tuple[str, str]]:
        if self.key is not None:
            yield "key", self.key
        if self.id_is_clients:
            yield "id", self.order_id


def placement(
    email: str,
    amount: Decimal,
    order_id: str | None,
    *,
    correlation_id: str,
    key: str | None = None,
    traceparent: str | None = None,
) -> Placement:
    """An order to be taken; to be called within the request's span, which sends it."""
    id_ = order_id or time_ordered_id()
    record = outbound(
        NEW_ORDER,
        None,
        Order(order_id=id_, amount=amount, email=email),
        correlation_id=correlation_id,
        traceparent=traceparent,
    )
    now = time.time_ns() // 1_000_000
    return Placement(id_, order_id is not None, email, amount, correlation_id, now, record, key)


class Result(Enum):
    TAKEN = "taken"
    REPEATED = "the same was taken before"
    KEY_REUSED = "the key came with another request"
    ID_REUSED = "the id is another order's"


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of a placement. The fields are of the order that is there: this one, or the
    one taken before it, as it was first answered."""

    result: Result
    order_id: str
    email: str
    amount: Decimal
    correlation_id: str
    created_at: int


def take(connection: Connection, orders: Sequence[Placement]) -> Sequence[Outcome]:
    """Executed by the group commit, in its transaction. Where two orders of one group share a
    key or an id, the later one is looked at in another pass, when the earlier one is there."""
    outcomes: dict[int, Outcome] = {}
    left = list(enumerate(orders))
    while left:
        left = _pass(connection, left, outcomes)
    return [outcomes[number] for number in range(len(orders))]


def _pass(
    connection: Connection, orders: list[tuple[int, Placement]], outcomes: dict[int, Outcome]
) -> list[tuple[int, Placement]]:
    keys, rows = _known(connection, [order for _, order in orders])
    new: list[Placement] = []
    new_keys: list[Placement] = []
    claimed: set[tuple[str, str]] = set()
    later: list[tuple[int, Placement]] = []
    for number, order in orders:
        known = keys.get(order.key) if order.key is not None else None
        if known is not None:
            if known.fingerprint == order.fingerprint:
                outcomes[number] = _repeated(rows[known.order_id])
            else:
                outcomes[number] = _repeated(rows[known.order_id], Result.KEY_REUSED)
            continue
        row = rows.get(order.order_id)
        if row is not None and (row.email, row.amount) != (order.email, order.amount):
            outcomes[number] = _repeated(row, Result.ID_REUSED)  # and its key is not used up
            continue
        names = set(order.names)
        before = names & claimed
        claimed |= names
        if before:
            later.append((number, order))
            continue
        if order.key is not None:
            new_keys.append(order)
        if row is not None:
            outcomes[number] = _repeated(row)
            continue
        new.append(order)
        outcomes[number] = Outcome(
            Result.TAKEN,
            order.order_id,
            order.email,
            order.amount,
            order.correlation_id,
            order.created_at,
        )
    _insert(connection, new, new_keys)
    return later


def _known(
    connection: Connection, orders: Sequence[Placement]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Idempotency keys and orders that are there already, by key and by id."""
    asked = [order.key for order in orders if order.key is not None]
    keys = {row.key: row for row in _rows(connection, _keys, _keys.c.key, asked)}
    ids = {order.order_id for order in orders if order.id_is_clients}
    ids.update(row.order_id for row in keys.values())
    return keys, {row.id: row for row in _rows(connection, _orders, _orders.c.id, sorted(ids))}


def _rows(connection: Connection, table: Table, column: Any, values: Sequence[str]) -> Any:
    return connection.execute(select(table).where(column.in_(values))) if values else ()


def _insert(
    connection: Connection, new: Sequence[Placement], new_keys: Sequence[Placement]
) -> None:
    if new:
        rows = [
            {
                "id": order.order_id,
                "email": order.email,
                "amount": order.amount,
                "status": Status.ACCEPTED.value,
                "correlation_id": order.correlation_id,
                "created_at": order.created_at,
                "answered_with": order.correlation_id,
            }
            for order in sorted(new, key=lambda order: order.order_id)  # PostgreSQL: no deadlocks
        ]
        connection.execute(_orders.insert(), rows)
    if new_keys:
        rows = [
            {
                "key": order.key,
                "fingerprint": order.fingerprint,
                "order_id": order.order_id,
                "created_at": order.created_at,
            }
            for order in sorted(new_keys, key=lambda order: order.key or "")
        ]
        connection.execute(_keys.insert(), rows)
    write_outbox(connection, [order.record for order in new])


def _repeated(row: Any, result: Result = Result.REPEATED) -> Outcome:
    first = row.answered_with or row.correlation_id
    return Outcome(result, row.id, row.email, row.amount, first, row.created_at)
