import time
from enum import StrEnum

from sqlalchemy import LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from shop.db.tables import Base


def now() -> int:
    """As all times here: in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class State(StrEnum):
    """Of a letter. One that fails again after its redrive waits again."""

    WAITING = "waiting"
    QUEUED = "queued"  # for a redrive
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


class What(StrEnum):
    """Happened to a letter."""

    FAILED = "failed"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


class LetterRow(Base):
    """A record that a group could not handle, and how far it is from being settled. What nobody
    told is None. Times are milliseconds since the epoch.

    `topic`, `partition`, `offset` and `timestamp` are where it failed first, `exception` and what
    belongs to it why it failed last. `key_name` stands for the key, which may be too long for an
    index. `redrive` is the one that it was last chosen for, `traceparent` of the span that took it
    in, where that was sampled."""

    __tablename__ = "letter"

    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    topic: Mapped[str | None]
    partition: Mapped[int | None]
    offset: Mapped[int | None]
    timestamp: Mapped[int | None]
    consumer_group: Mapped[str | None]
    key_name: Mapped[str | None]
    exception: Mapped[str | None]
    message: Mapped[str | None]
    attempts: Mapped[int | None]
    failures: Mapped[int]
    first_at: Mapped[int]
    last_at: Mapped[int]
    letter_partition: Mapped[int]  # of the newest record on the dead-letter topic
    letter_offset: Mapped[int]
    redrive: Mapped[str | None]
    event_id: Mapped[str | None]
    correlation_id: Mapped[str | None]
    stacktrace: Mapped[str | None]
    traceparent: Mapped[str | None]
    headers: Mapped[bytes] = mapped_column(LargeBinary)  # msgpack: [[name, bytes], …]
    key: Mapped[bytes | None] = mapped_column(LargeBinary)
    value: Mapped[bytes | None] = mapped_column(LargeBinary)


class LetterEventRow(Base):
    """What happened to a letter, and by whom: a failure by its group, an end by a person. The
    place is that of the record that failed; `detail` says why."""

    __tablename__ = "letter_event"

    id: Mapped[int] = mapped_column(primary_key=True)
    letter: Mapped[str]
    at: Mapped[int]
    what: Mapped[str]
    by: Mapped[str | None]
    detail: Mapped[str | None]
    redrive: Mapped[str | None]
    partition: Mapped[int | None]
    offset: Mapped[int | None]
    exception: Mapped[str | None]


class RedriveRow(Base):
    """A choice of letters to be redriven. `asked` is the request as JSON, `plan` what it chose;
    `rate` is letters per second, None for as fast as it goes; `target` is for letters without
    a topic of the shop, `target_group` for those of a group that does not read the topic.
    `traceparent` is of the request, where it is sampled."""

    __tablename__ = "redrive"

    id: Mapped[str] = mapped_column(primary_key=True)
    asked: Mapped[bytes] = mapped_column(LargeBinary)
    plan: Mapped[bytes] = mapped_column(LargeBinary)
    by: Mapped[str]
    rate: Mapped[float | None]
    target: Mapped[str | None]
    target_group: Mapped[str | None]
    traceparent: Mapped[str | None]
    asked_at: Mapped[int]
    finished_at: Mapped[int | None]
