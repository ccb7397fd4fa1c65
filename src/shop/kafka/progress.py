"""Whether a consumer gets on: not only that its thread lives."""

import time
from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaException, TopicPartition

from shop.kafka.store import Partition

LOOK_EVERY_S = 1.0


class Standstill(NamedTuple):
    """`at`: the offset that the partition should go on from; None: a batch in hand takes long."""

    reason: str
    partition: Partition | None = None
    at: int = 0


class Progress:
    """Written by the thread that polls, read by any. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turned_at = clock()
        self._looked_at = -LOOK_EVERY_S
        self._since: dict[Partition, tuple[int, float]] = {}

    def turned(self, behind: Callable[[], Mapping[Partition, int]]) -> None:
        """A turn of the loop ends. `behind` gives where the partitions stand that have records to
        read, and nothing to wait for; it is asked once a second at most."""
        now = self._clock()
        self._turned_at = now
        if now < self._looked_at + LOOK_EVERY_S:
            return
        before = self._since
        self._since = {
            partition: known if (known := before.get(partition, (at, now)))[0] == at else (at, now)
            for partition, at in behind().items()
        }
        self._looked_at = now

    def standstill(self, after: float) -> Standstill | None:
        """Where this consumer has made no progress for more than `after` seconds."""
        now = self._clock()
        if now - self._turned_at > after:
            return Standstill(f"the batch in hand takes {now - self._turned_at:.0f} s")
        for partition, (at, since) in self._since.items():
            stood = self._looked_at - since
            if stood > after:
                where = f"{partition.topic}[{partition.number}]"
                return Standstill(f"{where} stands at {at} for {stood:.0f} s", partition, at)
        return None


def behind(
    consumer: Any,
    held: Mapping[Partition, int | None],
    ends: Mapping[Partition, int],
    without: Container[Partition],
) -> dict[Partition, int]:
    """Where the partitions stand whose logs go on past that, as far as the client was told. `ends`
    are the offsets at which it saw a log end: all that is before them and past the last record are
    markers of transactions. What follows may still be of a transaction that is open."""
    found = {}
    for partition, position in held.items():
        at = max(position or 0, ends.get(partition, 0))
        if partition not in without and _end(consumer, partition) > at:
            found[partition] = at
    return found


def _end(consumer: Any, partition: Partition) -> int:
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
    except KafkaException:
        return -1
    return -1 if low == high else int(high)  # nothing there; or -1001 for both, not known
