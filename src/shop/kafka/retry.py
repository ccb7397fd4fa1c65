"""When to try again: attempts per record, and which partitions wait until when."""

import logging
import random
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from shop.kafka.errors import ListenerDeclarationError, PermanentFailure, Unavailable
from shop.kafka.store import Partition

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backoff:
    """Exponential: `first` seconds, times `factor` each time, at most `longest`, +-20 % jitter."""

    first: float = 0.2
    factor: float = 2.0
    longest: float = 30.0

    def delay(self, attempt: int) -> float:
        """The wait after the attempt-th failure, counted from 1, in seconds."""
        exact = min(self.first * self.factor ** min(attempt - 1, 60), self.longest)
        return exact * random.uniform(0.8, 1.2)


@dataclass(frozen=True)
class Retry:
    """How often a record is tried, the first time included, before it becomes a dead letter; and
    the waits between. An error of one of the types `not_worth` is not tried again at all, like
    PermanentFailure."""

    attempts: int = 4
    backoff: Backoff = Backoff()
    not_worth: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        first, factor, longest = self.backoff.first, self.backoff.factor, self.backoff.longest
        if self.attempts < 1 or first < 0 or longest < first or factor < 1:
            raise ListenerDeclarationError(
                f"{self} cannot be: it takes 1 attempt or more, a factor of 1 or more, and "
                "0 <= first delay <= longest delay"
            )

    def delay_after(self, failures: int, error: Exception) -> float | None:
        """Seconds until the next attempt; None when there is none."""
        if failures >= self.attempts or isinstance(error, (PermanentFailure, *self.not_worth)):
            return None
        return self.backoff.delay(failures)


class Attempts:
    """Counts failures of the record that each partition stands at, and of the store. They are
    forgotten when the process ends: another one begins to count anew."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures: dict[Partition, tuple[int, int]] = {}
        self._store_failures = 0

    def failed(self, partition: Partition, offset: int) -> int:
        """How often this record has failed now."""
        at, count = self._failures.get(partition, (offset, 0))
        count = count + 1 if at == offset else 1
        self._failures[partition] = (offset, count)
        return count

    def this_one(self, topic: str, partition: int, offset: int) -> int:
        """Which attempt the next one is; 1 is the first."""
        if not self._failures:
            return 1
        at, count = self._failures.get(Partition(topic, partition), (offset, 0))
        return count + 1 if at == offset else 1

    def redelivery(self, asked: float | None) -> float:
        """Seconds until a record that was not acknowledged comes again."""
        return self._backoff.delay(3) if asked is None else asked

    def store_failed(self) -> float:
        self._store_failures += 1
        return min(self._backoff.delay(self._store_failures), 5.0)

    def store_is_back(self) -> None:
        self._store_failures = 0


SHORTEST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0


class Availability:
    """Whether what a group's listeners need is there, as the partitions that wait for it told.
    Thread-safe."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._lock = threading.Lock()
        self._since: dict[Partition, float] = {}
        self.trouble: str | None = None

    def away(self, partition: Partition, error: Unavailable) -> float:
        """Seconds until this partition's next try: as long as it has waited, within limits."""
        with self._lock:
            now = time.monotonic()
            if not self._since:
                log.warning("group %s waits: %s", self._group, error)
            since = self._since.setdefault(partition, now)
            self.trouble = str(error)
            return min(max(now - since, SHORTEST_WAIT_S), LONGEST_WAIT_S)

    def back(self, partitions: Iterable[Partition]) -> None:
        """Those got on, or went to another consumer."""
        with self._lock:
            began = [since for p in partitions if (since := self._since.pop(p, None)) is not None]
            if began and not self._since:
                away = time.monotonic() - min(began)
                log.info("group %s goes on after %.0f s", self._group, away)
                self.trouble = None


class Waiting:
    """The partitions that are paused, each until its time."""

    def __init__(self) -> None:
        self._due: dict[Partition, float] = {}

    def add(self, partition: Partition, delay: float) -> None:
        """Until then, or longer where it waits longer already."""
        due = time.monotonic() + delay
        self._due[partition] = max(due, self._due.get(partition, due))

    def __contains__(self, partition: object) -> bool:
        return partition in self._due

    def forget(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._due.pop(partition, None)

    def until_due(self) -> float:
        """Seconds until the next one is due; infinite when none waits."""
        if not self._due:
            return float("inf")
        return max(0.0, min(self._due.values()) - time.monotonic())

    def take_due(self) -> list[Partition]:
        if not self._due:
            return []
        now = time.monotonic()
        due = [partition for partition, at in self._due.items() if at <= now]
        self.forget(due)
        return due
