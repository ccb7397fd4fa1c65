"""One consumer of a group: the loop of polling and settling, and what is done on failure."""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from shop.kafka.dead_letter import Failure
from shop.kafka.dispatch import NotAcknowledged, Record, RecordFailed, Stopping, current_message
from shop.kafka.errors import Fenced, ListenerFailed, StoreUnavailable, Unavailable
from shop.kafka.intake import Intake
from shop.kafka.metrics import Counted, uncounted
from shop.kafka.progress import Progress
from shop.kafka.retry import Attempts, Availability, Retry
from shop.kafka.settlement import Settlement
from shop.kafka.spans import Batch
from shop.kafka.store import Partition

log = logging.getLogger(__name__)

LONGEST_SAID = 1_000  # characters of an error, in a log line


class _Failed(NamedTuple):
    """All before this record of its partition is handled, and it failed."""

    record: Record
    error: Exception


_ToDo: TypeAlias = deque[Sequence[Record] | _Failed]


class GroupConsumer:
    """Runs in one thread (`run`); `stop` and `trouble` may be used from any.

    Where a record of a batch fails, those before it are settled without it. It waits for its next
    attempt with its partition paused, while others go on; after the last one it becomes a dead
    letter, or the group stops in front of it where there is no place for those. The store being
    away, or what a listener needs, is no record's fault and counts no attempt.
    """

    def __init__(
        self,
        group: str,
        intake: Intake,
        settlement: Settlement,
        retry_of: Callable[[str], Retry],
        attempts: Attempts,
        availability: Availability,
        stopping: threading.Event,
        dead_letter_topic: str | None,
        counted: Counted = uncounted,
    ) -> None:
        self._group = group
        self._intake = intake
        self._settlement = settlement
        self._retry_of = retry_of
        self._attempts = attempts
        self._availability = availability
        self._stopping = stopping
        self._dead_letter_topic = dead_letter_topic
        self._counted = counted
        self._progress = Progress()
        self._away: set[Partition] = set()

    @property
    def assigned(self) -> threading.Event:
        """Set once this consumer took part in a rebalance."""
        return self._intake.assigned

    @property
    def trouble(self) -> str | None:
        """Why this consumer is not ready to handle records; None when it is."""
        if self._intake.reachability.down:
            return "no broker can be reached"
        if trouble := self._intake.store_trouble or self._intake.recognition.trouble:
            return trouble
        if trouble := self._availability.trouble:
            return trouble
        return None if self.assigned.is_set() else "no partitions assigned yet"

    @property
    def positions(self) -> Mapping[Partition, int | None]:
        """The next offset of each partition that it holds; None where it has handled nothing."""
        return dict(self._intake.positions.held)

    @property
    def in_hand_for(self) -> float:
        """Seconds that the batch in hand takes; a database that it waits for takes none."""
        return 0.0 if self._intake.store_trouble else self._progress.in_hand_for()

    @property
    def unreached_for(self) -> float:
        """Seconds that it has reached no broker."""
        return self._intake.reachability.down_for

    def standing(self, after: float) -> dict[Partition, int]:
        """The partitions of which it has read nothing for more than `after` seconds, and where."""
        return self._progress.standing(after)

    def stop(self) -> None:
        """Finish the record in hand, or the commit, and leave the group; `run` returns then."""
        self._stopping.set()

    def run(self) -> None:
        """Poll until stopped. Raises what must stop the group, with nothing skipped."""
        self._intake.open()
        try:
            while not self._stopping.is_set():
                self.turn()
        finally:
            self._intake.close()

    def turn(self) -> None:
        """Poll once, and handle what came."""
        records = self._intake.poll()
        if records:
            self._handle(records)
            current_message.set(None)
        self._intake.commit()
        self._progress.turned(self._intake.standing)
        if self._away:
            self._no_longer_away(self._away - self._intake.positions.held.keys())

    def _handle(self, records: Sequence[Record]) -> None:
        to_do: _ToDo = deque([records])
        while to_do and not self._stopping.is_set():
            part = to_do.popleft()
            try:
                if isinstance(part, _Failed):
                    self._decide(part.record, part.error, to_do)
                elif part:
                    self._settle(part)
            except (Fenced, StoreUnavailable) as error:
                self._set_all_back(
                    [*_records(part), *(r for p in to_do for r in _records(p))], error
                )
                return
            except Stopping:
                return
            except ListenerFailed:
                raise
            except Exception as error:
                to_do.extendleft(reversed(self._split(_records(part), error)))

    def _settle(self, records: Sequence[Record]) -> None:
        with Batch(
            self._group, self._intake.client_id, self._intake.polled, len(records),
            lambda: {record.partition.topic for record in records}, self._attempts.this_one,
            atomic=self._settlement.atomic,
        ):  # fmt: skip
            self._settlement.settle(records, self._intake.positions, self._stopping)
        if self._intake.store_trouble:
            log.debug("group %s: the database is back", self._group)
            self._intake.store_trouble = None
            self._attempts.store_is_back()
        if self._away:
            self._no_longer_away(self._away & {record.partition for record in records})

    def _no_longer_away(self, partitions: set[Partition]) -> None:
        """What they waited for is there, or they are another consumer's now."""
        self._availability.back(partitions)
        self._away -= partitions

    def _split(
        self, records: Sequence[Record], error: Exception
    ) -> list[Sequence[Record] | _Failed]:
        """What is to be done about records of which one failed: which one, the error says, or else
        trying one by one tells."""
        if not self._settlement.atomic:  # those before it are handled
            awaits = self._intake.positions.awaits
            left = [record for record in records if awaits(record.partition, record.offset)]
            cause = error.error if isinstance(error, RecordFailed) else error
            return [_Failed(left[0], cause), left[1:]]
        if isinstance(error, RecordFailed):
            at = error.index
            return [records[:at], _Failed(records[at], error.error), records[at + 1 :]]
        if len(records) == 1:
            return [_Failed(records[0], error)]
        log.debug("group %s: rolled back, one by one now: %r", self._group, error)
        return [[record] for record in records]

    def _decide(self, record: Record, error: Exception, to_do: _ToDo) -> None:
        """When the record comes again; or make it a dead letter."""
        if isinstance(error, Unavailable):
            delay = self._availability.away(record.partition, error)
            self._away.add(record.partition)
        elif isinstance(error, NotAcknowledged):
            delay = self._attempts.redelivery(error.delay)
        else:
            self._no_longer_away(self._away & {record.partition})
            self._counted(self._group, record.partition.topic, "failed")
            failures = self._attempts.failed(record.partition, record.offset)
            again = self._retry_of(record.partition.topic).delay_after(failures, error)
            if again is None:
                self._bury(record, Failure(self._group, error, failures))
                return
            delay = again
            what = (self._group, _where(record), delay, _what(error))
            log.warning("group %s: %s failed, again in %.1f s: %s", *what)
        self._counted(self._group, record.partition.topic, "retried")
        self._set_back(record, delay)
        for number, part in enumerate(to_do):  # behind it waits its partition
            if not isinstance(part, _Failed):
                to_do[number] = [r for r in part if r.partition != record.partition]
            elif part.record.partition == record.partition:
                to_do[number] = []

    def _bury(self, record: Record, failure: Failure) -> None:
        what = f"{_where(record)}: {_what(failure.error)}"
        if self._dead_letter_topic is None:
            raise ListenerFailed(f"group {self._group} cannot handle {what}") from failure.error
        try:
            self._settlement.bury(record, failure, self._intake.positions)
        except (Fenced, StoreUnavailable):
            raise
        except Exception as why:
            raise ListenerFailed(
                f"group {self._group} cannot handle {what}; nor can its dead letter be written: "
                f"{_what(why)}"
            ) from why
        self._counted(self._group, record.partition.topic, "dead")
        log.error("group %s made a dead letter of %s", self._group, what)

    def _set_back(self, record: Record, delay: float) -> None:
        """Read on from `record` after `delay` s; its partition waits, the others go on."""
        self._intake.pause([record.partition], delay)
        self._intake.seek({record.partition: record.offset})

    def _set_all_back(self, records: Sequence[Record], error: Fenced | StoreUnavailable) -> None:
        """Forget the batch in hand; read it again, or what the store says is next."""
        positions = self._intake.positions
        starts: dict[Partition, int] = {}
        topics: Counter[str] = Counter()
        for record in records:
            if positions.awaits(record.partition, record.offset):
                starts.setdefault(record.partition, record.offset)
                topics[record.partition.topic] += 1
        if isinstance(error, Fenced):
            for topic, count in topics.items():
                self._counted(self._group, topic, "fenced", count)
            log.warning("group %s: %s; reading from the stored position", self._group, error)
            try:
                stored = self._intake.stored(starts)
                positions.assign(stored)
                starts |= {p: offset for p, offset in stored.items() if offset is not None}
            except StoreUnavailable as unavailable:
                error = unavailable
        if isinstance(error, StoreUnavailable):
            if not self._intake.store_trouble:
                log.debug("group %s: %s; waiting for it", self._group, error)
            self._intake.store_trouble = str(error)
            self._intake.pause(positions.held, self._attempts.store_failed())
        self._intake.seek(starts)


def _records(part: Sequence[Record] | _Failed) -> Sequence[Record]:
    return [part.record] if isinstance(part, _Failed) else part


def _where(record: Record) -> str:
    return f"{record.partition.topic}[{record.partition.number}] at {record.offset}"


def _what(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= LONGEST_SAID else f"{text[:LONGEST_SAID]}…"
