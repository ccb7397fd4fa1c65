"""A service's database: one writer at a time on SQLite, many on PostgreSQL, the same code above.

SQLite: WAL, synchronous=FULL (a committed order survives power loss), BEGIN IMMEDIATE. Its own busy
handler sleeps where threads and processes would queue, so writers queue at locks here: a lock
within the process, and a file lock between processes.
"""

import fcntl
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from shop.kafka.errors import StoreUnavailable

log = logging.getLogger(__name__)

# SQLite's primary result codes that are the database's state: BUSY, LOCKED, NOMEM, READONLY,
# INTERRUPT, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, NOTADB. Others are mistakes in a statement.
_SQLITE_NOT_NOW = {5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 26}
# PostgreSQL's classes that say "not now": connection, transaction rollback (serialization,
# deadlock), resources, operator intervention, system error.
_POSTGRES_NOT_NOW = ("08", "40", "53", "57", "58")


class Database:
    """Thread-safe. `path` is the file of an SQLite database, None on PostgreSQL. `insert(table)`
    is an INSERT of this dialect, with on_conflict_do_nothing and on_conflict_do_update."""

    def __init__(self, url: str, *, schema: str | None = None) -> None:
        parsed = make_url(url)
        self.name = schema or Path(parsed.database or "db").stem
        self.schema = schema
        self.path: Path | None = None
        self._lock = threading.Lock()
        self._lock_file: int | None = None
        self._listeners: list[threading.Event] = []
        if parsed.get_backend_name() == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ValueError("an SQLite database here is a file, shared by processes")
            self.path = Path(parsed.database)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
            from sqlalchemy.dialects.sqlite import insert

            self.insert: Any = insert
            engine = create_engine(
                parsed,
                poolclass=QueuePool,
                pool_size=16,
                max_overflow=64,
                hide_parameters=True,
                connect_args={"check_same_thread": False, "isolation_level": None, "timeout": 5},
            )
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_immediate)
        elif parsed.get_backend_name() == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as postgresql_insert

            self.insert = postgresql_insert
            engine = create_engine(
                parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, pool_size=16,
                max_overflow=64, hide_parameters=True,
                connect_args={"options": f"-c search_path={schema or 'public'}"},
            )  # fmt: skip
        else:
            raise ValueError(f"{parsed.get_backend_name()} is neither sqlite nor postgresql")
        self.shown = f"{self.name} ({self.path})" if self.path else self.name
        self.engine: Engine = engine
        self._reader = engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def write(self, durable: bool = True) -> Iterator[Connection]:
        """A transaction, committed at the end of the block unless it raises.

        `durable=False`: no disk flush of its own. It survives the death of processes; a power
        failure may undo it together with all later ones, never it alone. Raises StoreUnavailable
        when the database cannot do it now (locked, full, gone). Hold it only for database work:
        on SQLite all other writers wait."""
        with self._writer_turn(), _availability(self.shown), self.engine.connect() as connection:
            sqlite = self.path is not None
            if not durable and sqlite:
                _set_synchronous(connection, "NORMAL")
            try:
                with connection.begin():
                    if not durable and not sqlite:
                        connection.execute(text("SET LOCAL synchronous_commit = off"))
                    yield connection
            finally:
                if not durable and sqlite:
                    _set_synchronous(connection, "FULL")
        for waiting in self._listeners:
            waiting.set()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading: each statement sees what was committed before it. Raises
        StoreUnavailable."""
        with _availability(self.shown), self._reader.connect() as connection:
            yield connection

    def wake_on_commit(self, waiting: threading.Event) -> None:
        """Set the event after each commit of this process. Others': see data_version."""
        self._listeners.append(waiting)

    def close(self) -> None:
        self.engine.dispose()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    @contextmanager
    def _writer_turn(self) -> Iterator[None]:
        if self._lock_file is None:
            yield
            return
        with self._lock:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)


class DataVersion:
    """Tells whether anybody, in any process, has committed since it was last asked.

    SQLite's `PRAGMA data_version`, a few microseconds. Belongs to one thread. On PostgreSQL it
    always says yes, so pollers there read at their own pace."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Any = None  # kept: given back to the pool, others would write with it
        self._last: object = None

    def changed(self) -> bool:
        if self._database.path is None:
            return True
        try:
            if self._connection is None:
                self._connection = self._database.engine.raw_connection()
            cursor = self._connection.cursor()
            version = cursor.execute("PRAGMA data_version").fetchall()
            cursor.close()
        except Exception as error:  # the file is gone or unreadable: let the reader find out
            log.debug("data_version of %s: %s", self._database.name, error)
            return True
        changed = bool(version != self._last)
        self._last = version
        return changed


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


@contextmanager
def _availability(name: str) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if not is_unavailable(error):
            raise
        reason = re.sub(r"\s+", " ", str(error.orig))
        code = getattr(error.orig, "sqlite_errorname", None)
        if code:
            reason += f" ({code})"
        raise StoreUnavailable(f"database {name} is not available: {reason}") from error


def _prepare_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 5000")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _set_synchronous(connection: Connection, value: str) -> None:
    raw: Any = connection.connection
    raw.execute(f"PRAGMA synchronous = {value}")


def _begin_immediate(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def check(database: Database) -> None:
    """Raises StoreUnavailable when the database cannot be written to."""
    with database.write() as connection:
        connection.execute(text("SELECT 1"))
