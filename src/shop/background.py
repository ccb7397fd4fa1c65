"""Answers that take long, kept at hand for those who must not wait."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

ASK_EVERY_S = 10.0
WANTED_FOR_S = 60.0  # after somebody looked
STALE_S = 60.0

Answer = TypeVar("Answer")


class Background(Generic[Answer]):
    """Asks in a thread of its own, every ASK_EVERY_S while somebody wants to know. Thread-safe."""

    def __init__(self, name: str, ask: Callable[[], Answer]) -> None:
        self._name = name
        self._ask = ask
        self._last: tuple[Answer, float] | None = None
        self._changed = threading.Condition()
        self._wanted_at = 0.0
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    @property
    def last(self) -> Answer | None:
        """At once; None where no answer came in the last STALE_S seconds."""
        with self._changed:
            self._wanted_at = time.monotonic()
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            last = self._last
        return None if last is None or time.monotonic() - last[1] > STALE_S else last[0]

    def stop(self) -> None:
        """Ask no more; one that is being asked may take its time."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._last = self._ask(), time.monotonic()
            except Exception as error:  # what is away is said by those who need it
                log.debug("%s: %s", self._name, error)
            self._stopped.wait(ASK_EVERY_S)
            with self._changed:
                if time.monotonic() - self._wanted_at > WANTED_FOR_S:
                    self._thread = None
                    return
