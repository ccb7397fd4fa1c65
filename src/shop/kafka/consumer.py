"""One consumer of a group: the loop of polling and settling, and what is done on failure."""

import logging
import threading
from collections.abc import Sequence

from shop.kafka.errors import Fenced, ListenerFailed, PermanentFailure, StoreUnavailable
from shop.kafka.intake import Intake
from shop.kafka.retry import Attempts
from shop.kafka.settlement import (
    NotAcknowledged,
    Record,
    Settlement,
    Stopping,
    current_message,
)
from shop.kafka.store import Partition

log = logging.getLogger(__name__)


class GroupConsumer:
    """Runs in one thread (`run`); `stop` and `trouble` may be used from any.

    A batch that fails is settled record by record: those that pass, pass; the one that fails waits
    for its next attempt with its partition paused, while others go on. After the last attempt the
    group stops in front of it. The store being away is no record's fault and counts no attempt.
    """

    def __init__(
        self,
        group: str,
        intake: Intake,
        settlement: Settlement,
        attempts: Attempts,
        stopping: threading.Event,
    ) -> None:
        self._group = group
        self._intake = intake
        self._settlement = settlement
        self._attempts = attempts
        self._stopping = stopping

    @property
    def assigned(self) -> threading.Event:
        """Set once this consumer took part in a rebalance."""
        return self._intake.assigned

    @property
    def trouble(self) -> str | None:
        """Why this consumer is not ready to handle records; None when it is."""
        if self._intake.broker_down:
            return "no broker can be reached"
        if trouble := self._intake.store_trouble or self._intake.recognition.trouble:
            return trouble
        return None if self.assigned.is_set() else "no partitions assigned yet"

    def stop(self) -> None:
        """Finish the record in hand, or the commit, and leave the group; `run` returns then."""
        self._stopping.set()

    def run(self) -> None:
        """Poll until stopped. Raises what must stop the group, with nothing skipped."""
        self._intake.open()
        try:
            while not self._stopping.is_set():
                records = self._intake.poll()
                if records:
                    self._handle(records)
                    current_message.set(None)
                self._intake.commit()
        finally:
            self._intake.close()

    def _handle(self, records: Sequence[Record]) -> None:
        """Settle the batch in one go; where that fails as a whole, record by record."""
        together = True
        while records and not self._stopping.is_set():
            chunk = records if together else records[:1]
            try:
                self._settle(chunk)
                records = records[len(chunk) :]
            except (Fenced, StoreUnavailable) as error:
                self._set_all_back(records, error)
                return
            except Stopping:
                return
            except Exception as error:
                if self._settlement.atomic and len(chunk) > 1:
                    log.debug("group %s: rolled back, one by one now: %r", self._group, error)
                    together = False
                    continue
                failed, records = self._split(records)
                self._set_back(failed, self._delay_after(failed, error))

    def _settle(self, records: Sequence[Record]) -> None:
        self._settlement.settle(records, self._intake.positions, self._stopping)
        if self._intake.store_trouble:
            log.info("group %s: the database is back", self._group)
            self._intake.store_trouble = None
            self._attempts.store_is_back()

    def _split(self, records: Sequence[Record]) -> tuple[Record, list[Record]]:
        """The record that failed, the first not handled; and those that do not wait behind it."""
        awaits = self._intake.positions.awaits
        left = [record for record in records if awaits(record.partition, record.offset)]
        return left[0], [record for record in left if record.partition != left[0].partition]

    def _delay_after(self, record: Record, error: Exception) -> float:
        """Seconds until the record comes again; raises ListenerFailed after the last attempt."""
        if isinstance(error, NotAcknowledged):
            return self._attempts.redelivery(error.delay)
        where = f"{record.partition.topic}[{record.partition.number}] at {record.offset}"
        delay = None
        if not isinstance(error, PermanentFailure):
            delay = self._attempts.failed(record.partition, record.offset)
        what = f"{type(error).__name__}: {error}"
        if delay is None:
            raise ListenerFailed(f"group {self._group} cannot handle {where}: {what}") from error
        log.warning("group %s: %s failed, again in %.1f s: %s", self._group, where, delay, what)
        return delay

    def _set_back(self, record: Record, delay: float) -> None:
        """Read on from `record` after `delay` s; its partition waits, the others go on."""
        self._intake.pause([record.partition], delay)
        self._intake.seek({record.partition: record.offset})

    def _set_all_back(self, records: Sequence[Record], error: Fenced | StoreUnavailable) -> None:
        """Forget the batch in hand; read it again, or what the store says is next."""
        positions = self._intake.positions
        starts: dict[Partition, int] = {}
        for record in records:
            if positions.awaits(record.partition, record.offset):
                starts.setdefault(record.partition, record.offset)
        if isinstance(error, Fenced):
            log.warning("group %s: %s; reading from the stored position", self._group, error)
            try:
                stored = self._intake.stored(starts)
                positions.assign(stored)
                starts |= {p: offset for p, offset in stored.items() if offset is not None}
            except StoreUnavailable as unavailable:
                error = unavailable
        if isinstance(error, StoreUnavailable):
            if not self._intake.store_trouble:
                log.warning("group %s: %s; waiting for it", self._group, error)
            self._intake.store_trouble = str(error)
            self._intake.pause(positions.held, self._attempts.store_failed())
        self._intake.seek(starts)
