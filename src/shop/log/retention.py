"""How much of the audit trail is kept: the oldest goes first, a little at a time."""

import threading
import time

from sqlalchemy import Connection, delete, func, select, text

from shop.db.database import Database
from shop.db.steward import Steward
from shop.log.model import AuditRecord

CHECK_S = 1.0
PAUSE_S = 0.01  # between two deletions, for the listener to write
CHUNK_ROWS = 500  # at once, a few milliseconds
CHUNK_BYTES = 4_000_000
TURN_S = 0.5  # of deleting, then the steward is asked whether it is still to go on

_DAY_MS = 86_400_000
_ROW_BYTES = 500  # of a row beside its value, with its part of the indexes; about

# There a deletion makes nothing smaller, only room to be used again: so not more than what the rows
# take that are left, by some of them, evenly spread.
_POSTGRESQL_BYTES = text(
    "SELECT least(pg_total_relation_size('audit'), (last - first + 1) * ("
    f"SELECT avg({_ROW_BYTES} + coalesce(pg_column_size(value), 0)) FROM audit "
    "JOIN generate_series(first, last, greatest(1, (last - first) / 200)) AS one ON id = one)) "
    "FROM (SELECT min(id) AS first, max(id) AS last FROM audit) AS ends"
)


class Retention:
    """Keeps `keep_days` days and at most about `keep_mb` megabytes (10^6 bytes) of records.

    The age counts from when a record was stored. On SQLite the size is that of the pages in use;
    free ones are used again, so the file does not grow, nor shrink."""

    def __init__(self, database: Database, *, keep_days: float, keep_mb: int) -> None:
        self._database = database
        self._keep_ms = int(keep_days * _DAY_MS)
        self._keep_bytes = keep_mb * 1_000_000
        self._due = 0.0

    def step(self, stopping: threading.Event) -> bool:
        """Delete for a moment what is too much; whether there is more."""
        now = time.monotonic()
        if now < self._due:
            return False
        while time.monotonic() < now + TURN_S:
            if not self._delete_some():
                self._due = time.monotonic() + CHECK_S
                return False
            if stopping.wait(PAUSE_S):
                return False
        return True

    def _delete_some(self) -> bool:
        """Whether anything was too old or too much."""
        with self._database.read() as connection:
            upto = self._too_much(connection)
        if upto is None:
            return False
        # Not flushed: rows that come back after a power failure are deleted again.
        with self._database.write(durable=False) as connection:
            connection.execute(delete(AuditRecord).where(AuditRecord.id <= upto))
        return True

    def _too_much(self, connection: Connection) -> int | None:
        """The id up to which a chunk of the oldest is to go."""
        excess = _bytes_in_use(connection) - self._keep_bytes
        too_old = time.time_ns() // 1_000_000 - self._keep_ms
        size = func.coalesce(func.length(AuditRecord.value), 0)
        oldest = (
            select(AuditRecord.id, AuditRecord.stored_at, size)
            .order_by(AuditRecord.id)
            .limit(CHUNK_ROWS)
        )
        upto, chunk = None, 0
        for id_, stored_at, length in connection.execute(oldest):
            if chunk >= CHUNK_BYTES or (stored_at >= too_old and chunk >= excess):
                break
            upto, chunk = id_, chunk + length + _ROW_BYTES
        return upto


def _bytes_in_use(connection: Connection) -> int:
    if connection.dialect.name == "sqlite":
        pages, free, size = (
            int(connection.execute(text(f"PRAGMA {name}")).scalar_one())
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size
    return int(connection.execute(_POSTGRESQL_BYTES).scalar_one())


def retention(database: Database, *, keep_days: float, keep_mb: int) -> Steward:
    """Runs where the group is served, in one process."""
    step = Retention(database, keep_days=keep_days, keep_mb=keep_mb).step
    return Steward(database, "audit-retention", step, every_s=CHECK_S)
