"""How to connect to a database: what is said once, to each new connection.

SQLite: WAL, synchronous=FULL (a committed order survives power loss), BEGIN IMMEDIATE.

PostgreSQL: nothing waits for ever. What another session has locked, and a server that does not
answer any more, become an error after seconds, as a locked SQLite file does; and the server lets go
of the locks of a client whose machine is gone.
"""

import sqlite3
import time
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

LOCKED_S = 5  # until a lock that somebody else holds is an error

_POOL: dict[str, Any] = {"pool_size": 16, "max_overflow": 64, "hide_parameters": True}
_KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}  # seconds


def sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        connect_args={"check_same_thread": False, "isolation_level": None, "timeout": LOCKED_S},
        **_POOL,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def postgresql_engine(url: URL, schema: str) -> Engine:
    """Its connections see the tables of the schema alone."""
    settings = {
        "search_path": schema,
        "lock_timeout": f"{LOCKED_S}s",
        **{f"tcp_{name}": value for name, value in _KEEPALIVES.items()},
    }
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    given = {name: value for name, value in url.query.items() if name != "options"}
    more = url.query.get("options", "")
    return create_engine(
        url.set(drivername="postgresql+psycopg", query=given),
        pool_pre_ping=True,
        connect_args={
            "options": f"{more} {options}",
            "application_name": f"shop {schema}",
            "connect_timeout": LOCKED_S,
            "tcp_user_timeout": 30_000,  # milliseconds
            **_KEEPALIVES,
        }
        | given,
        **_POOL,
    )


def _prepare_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {LOCKED_S * 1000}")
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _use_wal(cursor: sqlite3.Cursor) -> None:
    """Of a new file this is a change, and SQLite refuses it at once, without asking its busy
    handler, while another connection begins the same: both read the file and want it alone."""
    deadline = time.monotonic() + LOCKED_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _begin_immediate(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
