"""A payment that is to be taken, and the transaction that takes a group of them."""

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from shop.db.database import Database
from shop.db.outbox import write_outbox
from shop.events import LocalDateTime, Pix
from shop.http.desk import Desk
from shop.kafka.ids import derived_id, time_ordered_id
from shop.kafka.outbound import OutboundRecord, outbound
from shop.pix.model import PaymentRow, Status
from shop.pix.reading import PaymentView
from shop.topics import PIX

_payments: Any = PaymentRow.__table__


class Transfer(msgspec.Struct, frozen=True, gc=False):
    """A payment to be taken, its record encoded. One under an idempotency key is `repeatable`:
    its identifier is made from the key."""

    payment: PaymentView
    created_at: int
    record: OutboundRecord
    repeatable: bool

    @property
    def names(self) -> Iterable[str]:
        return [self.payment.identifier] if self.repeatable else ()


def transfer(
    source_key: str,
    target_key: str,
    amount: Decimal,
    *,
    correlation_id: str,
    key: str | None = None,
    traceparent: str | None = None,
) -> Transfer:
    """A payment to be taken; to be called within the request's span, which sends it."""
    identifier = time_ordered_id() if key is None else derived_id("", PIX.name, key)
    transferred_at = LocalDateTime.of(datetime.now())
    pix = Pix(
        identifier=identifier,
        source_key=source_key,
        target_key=target_key,
        amount=amount,
        transferred_at=transferred_at,
        status=Status.IN_PROCESS.value,
    )
    record = outbound(PIX, None, pix, correlation_id=correlation_id, traceparent=traceparent)
    return Transfer(
        PaymentView(
            identifier,
            source_key,
            target_key,
            amount,
            str(transferred_at),
            Status.IN_PROCESS,
            correlation_id,
        ),
        time.time_ns() // 1_000_000,
        record,
        key is not None,
    )


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The payment that is there, as it was first answered: this one, or the one taken before
    under its key; `reused` when that was another one."""

    payment: PaymentView
    reused: bool


class PaymentDesk(Desk[Transfer, Outcome]):
    """Takes payments in: the payment and its event are committed as one."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, take)


def take(connection: Connection, transfers: Sequence[Transfer]) -> Sequence[Outcome]:
    """Executed by the group commit, in its transaction."""
    there = _known(connection, [one.payment.identifier for one in transfers if one.repeatable])
    new: list[Transfer] = []
    outcomes: list[Outcome] = []
    for one in transfers:
        payment = there.get(one.payment.identifier)
        if payment is None:
            payment = there[one.payment.identifier] = one.payment
            new.append(one)
        outcomes.append(Outcome(payment, _asked(payment) != _asked(one.payment)))
    _insert(connection, new)
    return outcomes


def _asked(payment: PaymentView) -> tuple[object, ...]:
    return payment.source_key, payment.target_key, payment.amount


def _known(connection: Connection, identifiers: Sequence[str]) -> dict[str, PaymentView]:
    """Of these payments those that are there already, as they were first answered."""
    if not identifiers:
        return {}
    query = select(_payments).where(_payments.c.identifier.in_(identifiers))
    return {
        row.identifier: PaymentView(
            row.identifier,
            row.source_key,
            row.target_key,
            row.amount,
            row.transferred_at,
            Status.IN_PROCESS,
            row.correlation_id,
        )
        for row in connection.execute(query)
    }


def _insert(connection: Connection, new: Sequence[Transfer]) -> None:
    if new:
        rows = [
            {
                "identifier": one.payment.identifier,
                "source_key": one.payment.source_key,
                "target_key": one.payment.target_key,
                "amount": one.payment.amount,
                "transferred_at": one.payment.transferred_at,
                "status": one.payment.status.value,
                "correlation_id": one.payment.correlation_id,
                "created_at": one.created_at,
            }
            for one in sorted(new, key=lambda one: one.payment.identifier)  # no deadlocks
        ]
        connection.execute(_payments.insert(), rows)
    write_outbox(connection, [one.record for one in new])
