"""What a log holds, asked of the brokers for many partitions in one call."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from shop.kafka.answers import answered
from shop.kafka.connection import Connection
from shop.kafka.errors import KafkaError
from shop.kafka.store import Partition


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
    what = "offsets cannot be read"
    answers = []
    try:
        admin.list_topics(timeout=timeout)  # without its leaders known, a client may take seconds
        for spec in specs:
            asked = {TopicPartition(*partition): spec for partition in partitions}
            futures = (
                admin.list_offsets(asked, isolation_level=isolation, request_timeout=timeout)
                if asked
                else {}
            )
            answers.append(
                {
                    Partition(target.topic, target.partition): int(
                        answered(future, timeout, what).offset
                    )
                    for target, future in futures.items()
                }
            )
    except KafkaException as error:
        raise KafkaError(f"{what}: {error.args[0].str()}") from None
    return answers
