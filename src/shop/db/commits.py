"""Waking who waits for commits: one thread looks at all databases of a process, often."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from shop.db.changes import DataVersion
from shop.db.database import Database

LOOK_S = 0.005
DEAF_S = 0.05  # between two looks at a database that cannot tell


class CommitWatch:
    """Thread-safe. To look costs some 3 us, and to wake a thread for it 40: so one of them looks
    for all (docs/decisions/0018), while there is somebody who waits."""

    def __init__(self, every_s: float = LOOK_S) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._waiting: Mapping[threading.Event, Database] = {}  # replaced, never changed
        self._thread: threading.Thread | None = None

    @contextmanager
    def waking(self, database: Database, woken: threading.Event) -> Iterator[None]:
        """For the block, sets the event soon after a commit to the database, by any process. It
        may be set without one, so who was woken is to look."""
        try:
            with self._lock:
                self._waiting = {**self._waiting, woken: database}
                if self._thread is None or not self._thread.is_alive():
                    thread = threading.Thread(target=self._run, name="commits", daemon=True)
                    thread.start()
                    self._thread = thread
            yield
        finally:
            with self._lock:
                self._waiting = {e: d for e, d in self._waiting.items() if e is not woken}

    def _run(self) -> None:
        looks: dict[Database, _Look] = {}
        while self._is_needed():
            waiting = self._waiting
            for database in looks.keys() - set(waiting.values()):
                looks.pop(database).close()
            changed = {
                database
                for database in set(waiting.values())
                if looks.setdefault(database, _Look(database)).changed()
            }
            for woken, database in self._waiting.items():  # also who has come meanwhile
                if database in changed:
                    woken.set()
            time.sleep(self._every_s)  # its rhythm; a commit cannot wake it
        for look in looks.values():
            look.close()

    def _is_needed(self) -> bool:
        """Who waits from now on starts another thread, once it is not."""
        with self._lock:
            if not self._waiting:
                self._thread = None
            return bool(self._waiting)


class _Look:
    """At one database. One that cannot tell is taken for changed, and left alone for a while."""

    def __init__(self, database: Database) -> None:
        self._version = DataVersion(database)
        self._due = 0.0
        self.close = self._version.close

    def changed(self) -> bool:
        if self._due and time.monotonic() < self._due:
            return False
        changed = self._version.changed()
        self._due = 0.0 if self._version.connected else time.monotonic() + DEAF_S
        return changed
