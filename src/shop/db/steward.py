"""Work that goes on in the background of a service, done by one process at a time."""

import logging
import threading
from collections.abc import Callable

from shop.db.database import Database
from shop.db.election import Election
from shop.db.worker import Worker
from shop.kafka.errors import StoreUnavailable

log = logging.getLogger(__name__)

AGAIN_S = 1.0  # after a failure


class Steward(Worker):
    """One thread that calls `step(stopping)` as long as it is elected for its office.

    `step` does some work, a second of it at most, and returns whether there is more to do at once;
    else it is called again after a commit of this process or `every_s` seconds. It is to leave
    things such that another process can go on at any time. What it raises is logged, and it is
    called again.
    """

    def __init__(
        self,
        database: Database,
        office: str,
        step: Callable[[threading.Event], bool],
        *,
        every_s: float,
    ) -> None:
        super().__init__(database, office)
        self._office = office
        self._step = step
        self._every_s = every_s

    def _run(self) -> None:
        election = Election(self._database, self._office)
        try:
            while True:
                self._woken.clear()
                if self._stopping.is_set():
                    break
                try:
                    more = election.won() and self._step(self._stopping)
                except StoreUnavailable as error:
                    log.debug("%s: %s; waiting for it", self._office, error)
                    more = self._stopping.wait(AGAIN_S)
                except Exception:
                    log.exception("%s failed; trying again", self._office)
                    more = self._stopping.wait(AGAIN_S)
                if not more:
                    self._woken.wait(self._every_s)
        finally:
            election.resign()
