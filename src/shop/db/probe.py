"""Whether a database takes writes, which only a write can tell."""

import threading
import time

from shop.db.database import Database
from shop.db.tables import outbox
from shop.kafka.errors import StoreUnavailable

EVERY_S = 2.0

# More than is left in pages that are begun: where it finds no room, an order soon finds none.
_VALUE = bytes(16_384)


class Probe:
    """Writes a row to the outbox and takes it back, in one transaction that nobody sees but the
    disk: at most one in `every_s` seconds, and none that is not asked for. Thread-safe."""

    def __init__(self, database: Database, every_s: float = EVERY_S) -> None:
        self._database = database
        self._every_s = every_s
        self._turn = threading.Lock()
        self._due = 0.0
        self._trouble: str | None = None

    def trouble(self) -> str | None:
        """Why the last one failed, or None. Waits as long as a writer does."""
        with self._turn:
            if time.monotonic() >= self._due:
                self._trouble = self._try()
                self._due = time.monotonic() + self._every_s
            return self._trouble

    def _try(self) -> str | None:
        row = {"topic": "", "value": _VALUE, "headers": b"", "created_at": 0}
        try:
            with self._database.write() as connection:
                written = connection.execute(outbox.insert().returning(outbox.c.id), row)
                connection.execute(outbox.delete().where(outbox.c.id == written.scalar_one()))
        except StoreUnavailable as error:
            return str(error)
        return None
