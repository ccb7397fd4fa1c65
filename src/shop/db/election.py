"""One of several processes on a database does a thing at a time; when it dies another one does."""

import fcntl
import os
import zlib
from contextlib import suppress

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from shop.db.availability import READ
from shop.db.database import Database


class Election:
    """Held until the process dies or resigns, so there is no lease to renew and no clock to trust.

    SQLite: a file lock, which ends with its process. PostgreSQL: an advisory lock, which ends with
    its connection. Belongs to one thread.
    """

    def __init__(self, database: Database, office: str) -> None:
        self._database = database
        self._office = office
        self._file: int | None = None
        self._connection: Connection | None = None

    def won(self) -> bool:
        """Whether this one is elected, trying if it is not. Raises StoreUnavailable."""
        if self._database.path is not None:
            return self._won_file()
        with self._database.availability.needed(READ):
            return self._won_connection()

    def resign(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if self._connection is not None:
            with suppress(SQLAlchemyError):  # it ends with the connection too, a little later
                self._connection.execute(text("SELECT pg_advisory_unlock_all()"))
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def _won_file(self) -> bool:
        if self._file is not None:
            return True
        file = os.open(f"{self._database.path}.{self._office}", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def _won_connection(self) -> bool:
        try:
            if self._connection is not None:
                self._connection.execute(text("SELECT 1"))
                return True
            connection = self._database.engine.connect().execution_options(
                isolation_level="AUTOCOMMIT"
            )
            number = zlib.crc32(f"{self._database.name}/{self._office}".encode())
            won = connection.execute(text("SELECT pg_try_advisory_lock(:n)"), {"n": number})
            if won.scalar():
                self._connection = connection
                return True
            connection.close()
            return False
        except Exception:
            self.resign()
            raise
