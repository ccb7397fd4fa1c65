from decimal import Decimal
from enum import StrEnum

from sqlalchemy.orm import Mapped, mapped_column

from shop.db.tables import Base, ExactDecimal


class Status(StrEnum):
    """As on the wire of the Java services."""

    IN_PROCESS = "EM_PROCESSAMENTO"
    PROCESSED = "PROCESSADO"
    FAILED = "ERRO"


class PaymentRow(Base):
    """A payment as it was accepted, or as it came by the topic, and what was decided of it once.

    `transferred_at` is local time in ISO form, without a zone, with every digit that came. The
    other times are milliseconds since the epoch. `correlation_id` is that of the first answer."""

    __tablename__ = "payment"

    identifier: Mapped[str] = mapped_column(primary_key=True)
    source_key: Mapped[str | None]
    target_key: Mapped[str | None]
    amount: Mapped[Decimal | None] = mapped_column(ExactDecimal)
    transferred_at: Mapped[str | None]
    status: Mapped[str]
    correlation_id: Mapped[str]
    created_at: Mapped[int]
    decided_at: Mapped[int | None]


class KeyRow(Base):
    """A key that can pay and be paid. None is ever deleted."""

    __tablename__ = "pix_key"

    key: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[int]
