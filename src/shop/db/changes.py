"""Whether anybody has committed, for those who wait for it: asked often, so it must cost little."""

import logging
from typing import Any

from shop.db.database import Database

log = logging.getLogger(__name__)


class DataVersion:
    """Tells whether anybody, in any process, has committed since it was last asked.

    A few microseconds: SQLite's `PRAGMA data_version`, and on PostgreSQL what it has been notified
    of. Where it cannot tell, it says yes. Belongs to one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Any = None
        self._last: object = None

    @property
    def connected(self) -> bool:
        """Whether `changed` need not connect first, which takes milliseconds."""
        return self._connection is not None

    def changed(self) -> bool:
        try:
            if self._database.path is None:
                return self._notified()
            return self._moved_on()
        except Exception as error:  # it is gone or unreadable: let the reader find out
            log.debug("changes of %s: %s", self._database.name, error)
            self.close()
            return True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Any:
        """One of its own: given back to the pool, others would write with it."""
        self._connection = self._database.engine.raw_connection()
        self._connection.detach()
        return self._connection.dbapi_connection

    def _moved_on(self) -> bool:
        if self._connection is None:
            self._connect()
        cursor = self._connection.cursor()
        version = cursor.execute("PRAGMA data_version").fetchall()
        cursor.close()
        changed = bool(version != self._last)
        self._last = version
        return changed

    def _notified(self) -> bool:
        if self._connection is None:
            connection = self._connect()
            connection.autocommit = True
            connection.execute(f'LISTEN "{self._database.channel}"')
            return True  # there may have been commits before
        server = self._connection.dbapi_connection.pgconn
        server.consume_input()  # of what has come already; raises when the server is gone
        changed = False
        while server.notifies() is not None:
            changed = True
        return changed
