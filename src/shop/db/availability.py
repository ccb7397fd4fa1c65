"""Whether a database is there: which errors say that it is not, and what the log tells of it."""

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from shop.kafka.errors import StoreUnavailable

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())  # commands have no log, and say themselves what they miss

# SQLite's primary result codes that are the database's state: BUSY, LOCKED, NOMEM, READONLY,
# INTERRUPT, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, NOTADB. Others are mistakes in a statement.
_SQLITE_NOT_NOW = {5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 26}
# PostgreSQL's codes and classes of codes that are its state: connection, read-only, idle for too
# long, authorization, transaction rollback (serialization, deadlock), no privilege, resources, lock
# not available, operator intervention, system error, internal error.
_POSTGRES_NOT_NOW = (
    "08", "25006", "25P03", "28", "40", "42501", "53", "55P03", "57", "58", "XX",
)  # fmt: skip

READ, WRITE = "read", "write"

CALM_S = 5.0  # without a failure, until it is back: some may succeed all the while
FORGOTTEN_S = 60.0  # after so long a failure is another outage, also where nobody tried meanwhile


class Availability:
    """Of one database, which is `shown` as that. Thread-safe.

    The log has one line when it cannot be read, or not be written, any more, and one when all of it
    is back, whoever in the process meets it and however often. One that was never there is told of
    by who cannot start."""

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._was_there = False
        # To read, to write: when that failed last. A full disk can still be read.
        self._failed_at: dict[str, float] = {}
        self._changing = threading.Lock()

    @contextmanager
    def needed(self, to: str) -> Iterator[None]:
        """To READ or to WRITE. Raises StoreUnavailable for an error of the block that is the
        database's state."""
        try:
            yield
        except DBAPIError as error:
            if not is_unavailable(error):
                raise
            unavailable = StoreUnavailable(
                f"database {self._shown} is not available: {_why(error)}"
            )
            self.failed(to, unavailable)
            raise unavailable from error
        self.worked(to)

    def failed(self, to: str, error: StoreUnavailable) -> None:
        with self._changing:
            if not self._was_there:
                return
            now = time.monotonic()
            last = self._failed_at.get(to)
            self._failed_at[to] = now
            if last is None or now - last > FORGOTTEN_S:
                log.warning("%s; trying on", error)

    def worked(self, to: str) -> None:
        self._was_there = True
        if not self._failed_at:
            return
        with self._changing:
            calm_since = time.monotonic() - CALM_S
            over = {READ, WRITE} if to == WRITE else {READ}
            was_away = bool(self._failed_at)
            for one in over:
                if self._failed_at.get(one, calm_since) < calm_since:
                    del self._failed_at[one]
            if was_away and not self._failed_at:
                log.info("database %s is back", self._shown)


def is_unavailable(error: DBAPIError) -> bool:
    """Whether an error is the database's state and not the statement's fault."""
    if error.connection_invalidated:
        return True
    sqlite_code = getattr(error.orig, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return (sqlite_code & 0xFF) in _SQLITE_NOT_NOW
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # psycopg: no answer from a server at all
        return type(error.orig).__name__ == "OperationalError"
    return str(state).startswith(_POSTGRES_NOT_NOW)


def _why(error: DBAPIError) -> str:
    reason = re.sub(r"\s+", " ", str(error.orig))
    code = getattr(error.orig, "sqlite_errorname", None)
    return f"{reason} ({code})" if code else reason
