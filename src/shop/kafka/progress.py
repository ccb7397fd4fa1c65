"""Whether a consumer gets on: not only that its thread lives."""

import time
from collections.abc import Callable, Mapping

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition

from shop.kafka.connection import Connection
from shop.kafka.errors import KafkaError
from shop.kafka.offsets import log_bounds
from shop.kafka.store import Partition

LOOK_EVERY_S = 1.0
ANSWER_S = 2.0  # for brokers to answer


class Progress:
    """Written by the thread that polls, read by any. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turned_at = clock()
        self._looked_at = -LOOK_EVERY_S
        self._since: dict[Partition, tuple[int, float]] = {}

    def turned(self, positions: Callable[[], Mapping[Partition, int]]) -> None:
        """A turn of the loop ends. `positions` gives where the partitions stand that wait for
        nothing; it is asked once a second at most."""
        now = self._clock()
        self._turned_at = now
        if now < self._looked_at + LOOK_EVERY_S:
            return
        before = self._since
        self._since = {
            partition: known
            if (known := before.get(partition, (None, now)))[0] == at
            else (at, now)
            for partition, at in positions().items()
        }
        self._looked_at = now

    def in_hand_for(self) -> float:
        """Seconds since a turn ended."""
        return self._clock() - self._turned_at

    def standing(self, after: float) -> dict[Partition, int]:
        """The partitions that have stood at an offset for more than `after` seconds."""
        until = self._looked_at - after
        return {p: at for p, (at, since) in self._since.items() if since < until}


def unread(connection: Connection, standing: Mapping[Partition, int]) -> list[Partition]:
    """Those of which a record can be read at that offset or later; none when the brokers do not
    answer. A log may go on by markers of transactions alone, or by one that is open."""
    committed = IsolationLevel.READ_COMMITTED
    try:
        bounds = log_bounds(connection, list(standing), ANSWER_S, isolation=committed)
        longer = [partition for partition, at in standing.items() if bounds[partition].high > at]
        return [p for p in longer if _has_record(connection, p, standing[p])]
    except (KafkaError, KafkaException):
        return []


def _has_record(connection: Connection, partition: Partition, at: int) -> bool:
    reader = connection.reader()
    try:
        reader.assign([TopicPartition(*partition, at)])
        return any(record.error() is None for record in reader.consume(1, ANSWER_S))
    finally:
        reader.close()  # type: ignore[no-untyped-call]
