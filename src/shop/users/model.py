from enum import StrEnum

from sqlalchemy.orm import Mapped, mapped_column

from shop.db.tables import Base


class UserRow(Base):
    """A customer, known by an e-mail address. `created_at`: milliseconds since the epoch."""

    __tablename__ = "users"

    uuid: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int]


class State(StrEnum):
    RUNNING = "running"
    FINISHED = "finished"
    REFUSED = "refused"


class FanOutRow(Base):
    """A record for each user, asked for by the event `id`. Times are milliseconds since the epoch.

    `cursor` is the uuid of the last user whose record the broker has acknowledged, "" before the
    first; `sent` counts them. `total` is counted when the first is sent, and exact at the end.
    `refused`: why."""

    __tablename__ = "fan_out"

    id: Mapped[str] = mapped_column(primary_key=True)
    target: Mapped[str]
    correlation_id: Mapped[str]
    traceparent: Mapped[str | None]
    asked_at: Mapped[int]
    state: Mapped[str]
    total: Mapped[int | None]
    sent: Mapped[int]
    cursor: Mapped[str]
    finished_at: Mapped[int | None]
    refused: Mapped[str | None]
