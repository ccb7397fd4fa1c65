"""A thread that works in the background of a database, until it is asked to stop."""

import threading

from shop.db.database import Database


class Worker:
    """`_run` is the thread's work: until `_stopping` is set, woken by `_woken` after each commit
    of this process."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        database.wake_on_commit(self._woken)

    def start(self) -> None:
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Finish what is in hand, then end; without waiting, so that several end together."""
        self._stopping.set()
        self._woken.set()

    def stop(self, timeout: float = 3.0) -> bool:
        """Ask, and wait for at most `timeout` seconds; whether it ended."""
        self.ask_to_stop()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    def _run(self) -> None:
        raise NotImplementedError
