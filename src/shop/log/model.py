from sqlalchemy import LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from shop.db.tables import Base


class AuditRecord(Base):
    """A record as it came, with what could be read of it. Ids keep the order of arrival; times are
    milliseconds since the epoch, `timestamp` is the record's own and -1 where it has none.

    `origin` is the beginning of the correlation id that all records share which come of one
    send."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True)
    topic: Mapped[str]
    partition: Mapped[int]
    offset: Mapped[int]
    timestamp: Mapped[int]
    stored_at: Mapped[int]
    type: Mapped[str | None]
    event_id: Mapped[str]
    correlation_id: Mapped[str]
    origin: Mapped[str]
    order_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    key: Mapped[bytes | None] = mapped_column(LargeBinary)
    value: Mapped[bytes | None] = mapped_column(LargeBinary)
