from decimal import Decimal
from enum import StrEnum

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from shop.db.tables import Base, ExactDecimal


class Status(StrEnum):
    ACCEPTED = "accepted"
    APPROVED = "approved"
    REJECTED = "rejected"


class OrderRow(Base):
    """An order as the API answers for it. Times are milliseconds since the epoch.

    `answered_with` is the correlation id of the first answer, which every repeat gets again;
    `correlation_id` goes on with the order. An order that came by another way has none."""

    __tablename__ = "orders"

    id: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str]
    amount: Mapped[Decimal] = mapped_column(ExactDecimal)
    status: Mapped[str]
    correlation_id: Mapped[str]
    created_at: Mapped[int] = mapped_column(BigInteger)
    decided_at: Mapped[int | None] = mapped_column(BigInteger)
    answered_with: Mapped[str | None]


class IdempotencyKey(Base):
    """The key a client gave with an order, and what it asked for with it."""

    __tablename__ = "idempotency_key"

    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    order_id: Mapped[str]
    created_at: Mapped[int] = mapped_column(BigInteger)
