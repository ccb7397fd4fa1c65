"""Whether a consumer gets on: not only that its thread lives."""

import time
from collections.abc import Callable, Container, Mapping
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from shop.kafka.store import Partition

LOOK_EVERY_S = 1.0


class Progress:
    """Written by the thread that polls, read by any. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turned_at = clock()
        self._looked_at = -LOOK_EVERY_S
        self._since: dict[Partition, tuple[int | None, float]] = {}

    def turned(self, behind: Callable[[], Mapping[Partition, int | None]]) -> None:
        """A turn of the loop ends. `behind` gives the positions of the partitions that have records
        to read, and nothing to wait for; it is asked once a second at most."""
        now = self._clock()
        self._turned_at = now
        if now < self._looked_at + LOOK_EVERY_S:
            return
        before = self._since
        self._since = {
            partition: known
            if (known := before.get(partition, (None, now)))[0] == position
            else (position, now)
            for partition, position in behind().items()
        }
        self._looked_at = now

    def stalled(self, after: float) -> str | None:
        """Why this consumer has made no progress for more than `after` seconds; None if it has."""
        now = self._clock()
        if now - self._turned_at > after:
            return f"the batch in hand takes {now - self._turned_at:.0f} s"
        for (topic, number), (position, since) in self._since.items():
            stood = self._looked_at - since
            if stood > after:
                return f"{topic}[{number}] stands at {position} for {stood:.0f} s"
        return None


class Lag:
    """Which partitions have records to read, as far as the client was told, without asking."""

    def __init__(self) -> None:
        self._ends: dict[Partition, int] = {}

    def end_reached(self, event: Any) -> None:
        """At librdkafka's _PARTITION_EOF: all that a log holds past the last record are markers of
        transactions."""
        self._ends[Partition(event.topic(), event.partition())] = event.offset()

    def behind(
        self,
        consumer: Any,
        held: Mapping[Partition, int | None],
        without: Container[Partition],
    ) -> dict[Partition, int | None]:
        """Those of the partitions held whose logs go on past where they stand."""
        return {
            partition: position
            for partition, position in held.items()
            if partition not in without
            and _end(consumer, partition) > max(position or 0, self._ends.get(partition, 0))
        }


def _end(consumer: Any, partition: Partition) -> int:
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
    except KafkaException:
        return -1
    return -1 if low == high else int(high)  # nothing there; or -1001 for both, not known
