from decimal import Decimal
from enum import StrEnum

from sqlalchemy.orm import Mapped, mapped_column

from shop.db.tables import Base, ExactDecimal


class Decision(StrEnum):
    APPROVED = "approved"
    REJECTED = "rejected"
    UNDECIDED = "undecided"


class CustomerOrder(Base):
    """An order as reports show it, kept from what the topics tell. `at`: when it was ordered, or
    decided while only that is known; milliseconds since the epoch."""

    __tablename__ = "customer_order"

    order_id: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str]
    amount: Mapped[Decimal] = mapped_column(ExactDecimal)
    decision: Mapped[str]
    at: Mapped[int]


class ReportRun(Base):
    """A request for a report of every user. `written` counts the reports of it that are there,
    the last one `written_at`. Times are milliseconds since the epoch."""

    __tablename__ = "report_run"

    id: Mapped[str] = mapped_column(primary_key=True)
    correlation_id: Mapped[str]
    requested_at: Mapped[int]
    written: Mapped[int]
    written_at: Mapped[int | None]


class Report(Base):
    """The newest report of a user, by the name of its files. `email` stays known from the last
    request that told it; `run_id` is None where nobody of ours asked."""

    __tablename__ = "report"

    name: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str | None]
    run_id: Mapped[str | None]
    orders: Mapped[int]
    written_at: Mapped[int]
