"""What a log holds, asked of the brokers for many partitions in one call."""

import time
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka import KafkaError as Code
from confluent_kafka.admin import OffsetSpec

from shop.kafka.answers import answered, code_of
from shop.kafka.connection import Connection
from shop.kafka.errors import KafkaError
from shop.kafka.store import Partition

AGAIN_S = 0.05
_WHAT = "offsets cannot be read"
_MOVED = (
    Code.NOT_LEADER_FOR_PARTITION,
    Code.LEADER_NOT_AVAILABLE,
    Code.UNKNOWN_LEADER_EPOCH,  # the client has heard of a new leader before its broker has
    Code.FENCED_LEADER_EPOCH,
    Code.OFFSET_NOT_AVAILABLE,
)


class Bounds(NamedTuple):
    """The first offset that a log holds, and the next one that it will give."""

    low: int
    high: int


def log_bounds(
    connection: Connection,
    partitions: Collection[Partition],
    timeout: float = 8.0,
    *,
    isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
) -> dict[Partition, Bounds]:
    """The bounds of each partition; all must exist. With READ_COMMITTED, the log ends where the
    first transaction that is still open begins (the last stable offset, KIP-98), as it does for a
    consumer. Raises KafkaError."""
    specs = (OffsetSpec.earliest(), OffsetSpec.latest())
    low, high = _offsets(connection, partitions, specs, timeout, isolation)
    return {partition: Bounds(low[partition], high[partition]) for partition in low}


def offsets_at(
    connection: Connection, partitions: Collection[Partition], moment: int, timeout: float = 8.0
) -> dict[Partition, int | None]:
    """The first offset of each partition whose record is not older than `moment`, milliseconds
    since the epoch; None where there is no such record."""
    (found,) = _offsets(connection, partitions, [OffsetSpec.for_timestamp(moment)], timeout)
    return {partition: None if offset < 0 else offset for partition, offset in found.items()}


def _offsets(
    connection: Connection,
    partitions: Collection[Partition],
    specs: Sequence[Any],
    timeout: float,
    isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
) -> list[dict[Partition, int]]:
    admin = connection.admin()
    try:
        admin.list_topics(timeout=timeout)  # without its leaders known, a client may take seconds
        return [_offsets_of(admin, partitions, spec, timeout, isolation) for spec in specs]
    except KafkaException as error:
        raise KafkaError(f"{_WHAT}: {error.args[0].str()}") from None


def _offsets_of(
    admin: Any, partitions: Collection[Partition], spec: Any, timeout: float, isolation: Any
) -> dict[Partition, int]:
    """Partitions whose leader has just moved, or is new, are asked again."""
    found: dict[Partition, int] = {}
    left = set(partitions)
    deadline = time.monotonic() + timeout
    while left:
        asked = {TopicPartition(*partition): spec for partition in left}
        futures = admin.list_offsets(asked, isolation_level=isolation, request_timeout=timeout)
        for target, future in futures.items():
            try:
                offset = answered(future, timeout, _WHAT).offset
            except KafkaError as error:
                if code_of(error) not in _MOVED or time.monotonic() > deadline:
                    raise
            else:
                found[Partition(target.topic, target.partition)] = int(offset)
        left -= found.keys()
        if left:
            time.sleep(AGAIN_S)
            admin.list_topics(timeout=timeout)
    return found
