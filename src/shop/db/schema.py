"""Schema versions by Alembic, applied when a process starts.

A service's migrations are the files `NNNN_what.py` in its folder `migrations`, each the next
revision of one line. Where the database is at the newest one already, Alembic is not even imported.
"""

import fcntl
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from sqlalchemy import Column, inspect, text

from shop.db.availability import WRITE
from shop.db.database import Database
from shop.db.tables import messaging, outbox

_alembic = threading.Lock()


OLDEST_POSTGRESQL = 15


class SchemaError(Exception):
    """The database has a schema that this program does not know, or is too old for it."""


def upgrade(database: Database, service_package: str) -> None:
    """Bring the database to the newest schema. Safe when several processes do it at once.

    Raises StoreUnavailable, or SchemaError when the database is newer than this program, or its
    server too old."""
    _require_version(database)
    package = import_module(service_package)
    folder = Path(str(package.__file__)).parent / "migrations"
    revisions = sorted(file.stem.split("_")[0] for file in folder.glob("[0-9]*_*.py"))
    if _revision(database) == revisions[-1]:
        return
    with _alone(database):
        current = _revision(database)
        if current == revisions[-1]:
            return
        if current is not None and current not in revisions:
            raise SchemaError(
                f"database {database.name} has schema {current}, newer than this program's "
                f"{revisions[-1]}: start the version that made it"
            )
        _run_alembic(database, folder)


def create_messaging_tables() -> None:
    """Receipts, positions, the outbox and held keys as they are today: what is missing of them is
    added. For every service's first migration, and the next one after they changed."""
    from alembic import op

    messaging.create_all(op.get_bind())
    there = {column["name"] for column in inspect(op.get_bind()).get_columns(outbox.name)}
    for column in outbox.columns:
        if column.name not in there:
            op.add_column(outbox.name, Column(column.name, column.type, nullable=True))


def _require_version(database: Database) -> None:
    if database.path is not None:
        return
    with database.read() as connection:
        major = int(connection.execute(text("SHOW server_version_num")).scalar_one()) // 10_000
    if major < OLDEST_POSTGRESQL:
        raise SchemaError(
            f"database {database.name} is on PostgreSQL {major}; {OLDEST_POSTGRESQL} or newer is "
            "needed"
        )


def _revision(database: Database) -> str | None:
    with database.read() as connection:
        if not inspect(connection).has_table("alembic_version", schema=database.schema):
            return None
        revision: str | None = connection.execute(
            text("SELECT version_num FROM alembic_version")
        ).scalar()
        return revision


def _run_alembic(database: Database, folder: Path) -> None:
    from alembic import command
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "alembic"))
    config.set_main_option("version_locations", str(folder))
    config.set_main_option("path_separator", "os")
    with database.write() as connection:
        if database.schema:
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{database.schema}"'))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """One thread of this process at a time (Alembic has global state), and one process."""
    with _alembic, _one_process(database):
        yield


@contextmanager
def _one_process(database: Database) -> Iterator[None]:
    if database.path is not None:
        with Path(f"{database.path}.schema").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        return
    with database.availability.needed(WRITE), database.engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = 0"))  # others may take a while
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:n))"), {"n": database.name})
        yield  # the lock is held until this transaction ends
