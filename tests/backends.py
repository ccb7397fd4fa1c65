"""Where a test's databases are: SQLite files in its folder, or schemas on a real PostgreSQL."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError

from shop.databases import Databases
from shop.db.database import Database
from shop.settings import Settings
from tests.postgres import PostgresDatabase

URL = "SHOP_DATABASE__URL"
BACKENDS = ("sqlite", "postgresql")


class Backend:
    """`postgres`: the database of this test, where it is not SQLite. Processes that the test
    starts find the same by the environment."""

    def __init__(self, postgres: PostgresDatabase | None) -> None:
        self.postgres = postgres

    def times(self, count: int) -> int:
        """How often the same is done: on PostgreSQL, the second time that it is, half as often."""
        return count if self.postgres is None else max(1, count // 2)

    def open(self, service: str, folder: Path) -> Database:
        """The database of a service, at its newest schema; to be closed."""
        return Databases(Settings(data_dir=folder)).of(service)


@contextmanager
def stranger(database: Database) -> Iterator[None]:
    """Somebody else, for the block, lets nobody write to a database."""
    with database.engine.begin() as connection:  # on SQLite it begins as a writer
        if database.path is None:
            connection.execute(text("LOCK TABLE position IN ACCESS EXCLUSIVE MODE"))
        yield


def rows(database: Database | None, query: str, **values: object) -> list[Any]:
    """What a statement, which may change the data, finds; nothing while there are no tables."""
    if database is None:
        return []
    try:
        with database.engine.begin() as connection:
            result = connection.execute(text(query), values)
            return [tuple(row) for row in result] if result.returns_rows else []
    except (OperationalError, ProgrammingError) as error:
        if re.search('no such table|relation ".*" does not exist', str(error)):
            return []
        raise


def environment_of_databases() -> dict[str, str]:
    """What makes a process find the databases of this test."""
    return {URL: os.environ[URL]} if URL in os.environ else {}
