"""Topics that join a group of patterns while it runs."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from confluent_kafka import TopicPartition

from shop.kafka.errors import BrokerUnreachable, StoreUnavailable
from shop.kafka.store import Partition

AGAIN_S = 1.0  # after a broker or the store did not answer


class Recognition:
    """Holds partitions that are assigned back, paused, until their topics have been recognised: a
    topic may have been deleted and made anew since the group read it. Used by one thread.

    `recognise(topics)` raises PositionLost for one made anew; BrokerUnreachable and
    StoreUnavailable make it try again, and are `trouble` meanwhile. Without it nothing is held
    back.
    `reset_of(topic)` says where the group begins in a topic: earliest, latest or none."""

    def __init__(
        self,
        reset_of: Callable[[str], str],
        recognise: Callable[[Sequence[str]], None] | None,
    ) -> None:
        self.reset_of = reset_of
        self._recognise = recognise
        self.trouble: str | None = None
        self._held: set[Partition] = set()
        self._due = 0.0

    def assigned(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """To be called in the callback, when the partitions have been given to the client."""
        if self._recognise is None:
            consumer.resume(partitions)
            return
        consumer.pause(partitions)
        self._held.update(Partition(target.topic, target.partition) for target in partitions)

    def lost(self, partitions: Iterable[Partition]) -> None:
        self._held.difference_update(partitions)

    def release(self, consumer: Any) -> None:
        """Recognise what is held back, if it is time. Raises PositionLost."""
        if not self._held or self._recognise is None or time.monotonic() < self._due:
            return
        self.trouble = None
        for topic in sorted({partition.topic for partition in self._held}):
            try:
                self._recognise([topic])
            except (BrokerUnreachable, StoreUnavailable) as error:
                self.trouble = f"topic {topic} is not recognised yet: {error}"
                self._due = time.monotonic() + AGAIN_S
                continue
            known = [partition for partition in self._held if partition.topic == topic]
            consumer.resume([TopicPartition(*partition) for partition in known])
            self._held.difference_update(known)

    def __contains__(self, partition: object) -> bool:
        """Whether it holds this partition back."""
        return partition in self._held
