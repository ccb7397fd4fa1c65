"""Whether a consumer gets on: not only that its thread lives."""

import time
from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaException, TopicPartition

from shop.kafka.store import Partition

LOOK_EVERY_S = 1.0


class Standstill(NamedTuple):
    """`at`: the offset that the partition should go on from. None: of the whole consumer."""

    reason: str
    partition: Partition | None = None
    at: int = 0
    in_hand: bool = False


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

    def standstills(self, after: float) -> list[Standstill]:
        """Where this consumer has made no progress for more than `after` seconds."""
        now = self._clock()
        if now - self._turned_at > after:
            taken = now - self._turned_at
            return [Standstill(f"the batch in hand takes {taken:.0f} s", in_hand=True)]
        found = []
        for partition, (at, since) in self._since.items():
            stood = self._looked_at - since
            if stood > after:
                where = f"{partition.topic}[{partition.number}]"
                found.append(Standstill(f"{where} stands at {at} for {stood:.0f} s", partition, at))
        return found


def behind(
    consumer: Any,
    held: Mapping[Partition, int | None],
    without: Container[Partition],
) -> dict[Partition, int]:
    """Where the partitions stand whose logs go on past that, as far as the client was told: maybe
    only by markers of transactions, or by one that is open."""
    return {
        partition: position or 0
        for partition, position in held.items()
        if partition not in without and _end(consumer, partition) > (position or 0)
    }


def _end(consumer: Any, partition: Partition) -> int:
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
    except KafkaException:
        return -1
    return -1 if low == high else int(high)  # nothing there; or -1001 for both, not known
