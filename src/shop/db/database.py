"""A service's database: one writer at a time on SQLite, many on PostgreSQL, the same code above.

SQLite's own busy handler sleeps where threads and processes would queue, so its writers queue at
locks here: a lock within the process, and a file lock between processes.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import make_url

from shop.db.availability import READ, WRITE, Availability
from shop.db.engines import postgresql_engine, sqlite_engine
from shop.db.metrics import DatabaseMetrics, Wait

log = logging.getLogger(__name__)


class Database:
    """Thread-safe. `path` is the file of an SQLite database, None on PostgreSQL. `insert(table)`
    is an INSERT of this dialect, with on_conflict_do_nothing and on_conflict_do_update. `channel`:
    of the notifications that PostgreSQL gives of commits. `metrics` may be set before it is used;
    None: nothing is measured."""

    def __init__(self, url: str, *, schema: str | None = None) -> None:
        parsed = make_url(url)
        self.name = schema or Path(parsed.database or "db").stem
        self.schema = schema
        self.channel = f"{schema or 'public'} changed"
        self.path: Path | None = None
        self._lock = threading.Lock()
        self._lock_file: int | None = None
        self._listeners: list[threading.Event] = []
        self.metrics: DatabaseMetrics | None = None
        if parsed.get_backend_name() == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ValueError("an SQLite database here is a file, shared by processes")
            self.path = Path(parsed.database)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
            from sqlalchemy.dialects.sqlite import insert

            self.insert: Any = insert
            engine = sqlite_engine(parsed)
        elif parsed.get_backend_name() == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as postgresql_insert

            self.insert = postgresql_insert
            engine = postgresql_engine(parsed, schema or "public")
        else:
            raise ValueError(f"{parsed.get_backend_name()} is neither sqlite nor postgresql")
        self.shown = f"{self.name} ({self.path})" if self.path else self.name
        self.availability = Availability(self.shown)
        self.engine: Engine = engine
        self._reader = engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def write(self, durable: bool = True) -> Iterator[Connection]:
        """A transaction, committed at the end of the block unless it raises.

        `durable=False`: no disk flush of its own. It survives the death of processes; a power
        failure may undo it together with all later ones, never it alone. Raises StoreUnavailable
        when the database cannot do it now (locked, full, gone). Hold it only for database work:
        on SQLite all other writers wait."""
        with (
            Wait(self.metrics, self.name) as wait,
            self._writer_turn(),
            self.availability.needed(WRITE),
            self.engine.connect() as connection,
        ):
            sqlite = self.path is not None
            if not durable and sqlite:
                _set_synchronous(connection, "NORMAL")
            try:
                with connection.begin():
                    wait.over()
                    if not durable and not sqlite:
                        connection.execute(text("SET LOCAL synchronous_commit = off"))
                    yield connection
            finally:
                if not durable and sqlite:
                    _set_synchronous(connection, "FULL")
            if not sqlite:
                self._notify(connection)
        for waiting in self._listeners:
            waiting.set()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading: each statement sees what was committed before it. Raises
        StoreUnavailable."""
        with self.availability.needed(READ), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def browse(self) -> Iterator[Connection]:
        """A connection for reading long results in parts (`yield_per`), all of one moment. Raises
        StoreUnavailable."""
        if self.path is not None:
            with self.read() as connection:
                yield connection
            return
        # There the cursor of a result that is not fetched at once lives as long as its transaction.
        with self.availability.needed(READ), self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="REPEATABLE READ")

    def wake_on_commit(self, waiting: threading.Event) -> None:
        """Set the event after each commit of this process. Others': see data_version."""
        self._listeners.append(waiting)

    def close(self) -> None:
        self.engine.dispose()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _notify(self, connection: Connection) -> None:
        """Of a commit, in a transaction of its own: those that notify commit one after another,
        and one with data to flush would make all services wait."""
        driver: Any = connection.connection.driver_connection
        try:
            driver.autocommit = True
            driver.execute(f'NOTIFY "{self.channel}"')
            driver.autocommit = False
        except Exception as error:  # who waits looks now and then by himself
            log.debug("cannot notify of a commit in %s: %s", self.shown, error)
            connection.invalidate()

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


def _set_synchronous(connection: Connection, value: str) -> None:
    raw: Any = connection.connection
    raw.execute(f"PRAGMA synchronous = {value}")
