"""When to try again: attempts per record, and which partitions wait until when."""

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass

from shop.kafka.store import Partition


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


class Attempts:
    """Counts failures of the record that each partition stands at, and of the store."""

    def __init__(self, limit: int, backoff: Backoff) -> None:
        self._limit = limit
        self._backoff = backoff
        self._failures: dict[Partition, tuple[int, int]] = {}
        self._store_failures = 0

    def failed(self, partition: Partition, offset: int) -> float | None:
        """Seconds until the next attempt, None when this was the last one."""
        at, count = self._failures.get(partition, (offset, 0))
        count = count + 1 if at == offset else 1
        self._failures[partition] = (offset, count)
        return None if count >= self._limit else self._backoff.delay(count)

    def redelivery(self, asked: float | None) -> float:
        """Seconds until a record that was not acknowledged comes again."""
        return self._backoff.delay(3) if asked is None else asked

    def store_failed(self) -> float:
        self._store_failures += 1
        return min(self._backoff.delay(self._store_failures), 5.0)

    def store_is_back(self) -> None:
        self._store_failures = 0


class Waiting:
    """The partitions that are paused, each until its time."""

    def __init__(self) -> None:
        self._due: dict[Partition, float] = {}

    def add(self, partition: Partition, delay: float) -> None:
        self._due[partition] = time.monotonic() + delay

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
