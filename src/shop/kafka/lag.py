"""How far groups are behind the logs that they read, asked of the brokers for all at once."""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition

from shop.kafka.connection import Connection, Consumer, silent
from shop.kafka.errors import KafkaError
from shop.kafka.offsets import Bounds, log_bounds
from shop.kafka.store import Partition

ANSWER_S = 2.0  # for brokers to answer


@dataclass(frozen=True)
class Logs:
    """What the brokers said, at `at` seconds since the epoch: the bounds of logs, and of some
    places in them the timestamp of the record that comes next, in milliseconds since the epoch."""

    at: float
    bounds: Mapping[Partition, Bounds]
    timestamps: Mapping[tuple[Partition, int], int]

    def lag(self, partition: Partition, position: int) -> int | None:
        """How many offsets are left to be read; None where the log is not known."""
        bounds = self.bounds.get(partition)
        return None if bounds is None else max(0, bounds.high - max(position, bounds.low))

    def oldest(self, partition: Partition, position: int, now: float) -> float | None:
        """The age of the record at `position`, in seconds; 0 where there is none. One that has been
        handled since the brokers were asked: as old as the record there was then, which is at
        least as much."""
        lag = self.lag(partition, position)
        if not lag:
            return None if lag is None else 0.0
        timestamp = self.timestamps.get((partition, position))
        if timestamp is not None:
            return max(0.0, now - timestamp / 1000)
        earlier = [t for (p, at), t in self.timestamps.items() if p == partition and at < position]
        return max(0.0, self.at - max(earlier) / 1000) if earlier else None


def logs_of(connection: Connection, positions: Iterable[tuple[Partition, int]]) -> Logs:
    """The logs of these partitions, whichever group reads them. Raises KafkaError."""
    at = time.time()
    places = set(positions)
    bounds = log_bounds(
        connection, {partition for partition, _ in places}, ANSWER_S,
        isolation=IsolationLevel.READ_COMMITTED,
    )  # fmt: skip
    logs = Logs(at, bounds, {})
    behind = [place for place in places if logs.lag(*place)]
    try:
        return replace(logs, timestamps=_timestamps(connection, behind)) if behind else logs
    except KafkaException as error:
        raise KafkaError(f"records cannot be read: {error.args[0].str()}") from None


def _timestamps(
    connection: Connection, places: Collection[tuple[Partition, int]]
) -> dict[tuple[Partition, int], int]:
    """Of the first record at or after each place; none where that does not come in time."""
    reader = Consumer(
        connection.address(), "shop-reader", "earliest", auto_commit_enable=False, logger=silent,
        error_callback=lambda _: None,
        extra_config=connection.client_config("lag")
        # One record of each is wanted.
        | {"queued.min.messages": 1, "fetch.message.max.bytes": 16_384},
    )  # fmt: skip
    found: dict[tuple[Partition, int], int] = {}
    left = sorted(places)
    deadline = time.monotonic() + ANSWER_S
    try:
        while left and time.monotonic() < deadline:
            # A partition can be read at one place at a time; groups may stand at several.
            now_read = dict(reversed(left))
            reader.assign([TopicPartition(*p, offset) for p, offset in now_read.items()])
            while now_read and time.monotonic() < deadline:
                for record in reader.consume(len(now_read), 0.1):
                    _take(record, now_read, found)
            left = [place for place in left if place not in found]
    finally:
        reader.close()  # type: ignore[no-untyped-call]
    return found


def _take(
    record: Any, wanted: dict[Partition, int], found: dict[tuple[Partition, int], int]
) -> None:
    partition = Partition(record.topic(), record.partition())
    if record.error() is None and record.offset() >= wanted.get(partition, record.offset() + 1):
        found[partition, wanted.pop(partition)] = record.timestamp()[1]
