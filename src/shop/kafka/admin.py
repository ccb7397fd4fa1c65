"""Topics as they are on the brokers: created on purpose, listed, described, required."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError as Code
from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import ConfigResource, NewTopic

from shop.kafka.connection import Connection
from shop.kafka.errors import BrokerUnreachable, KafkaError, TopicMissing
from shop.kafka.topic import Topic

HEARD_S = 0.05  # between two looks


@dataclass(frozen=True)
class PartitionState:
    """`leader` is a broker id, None while there is none; `low` and `high` are offsets."""

    number: int
    leader: int | None
    replicas: Sequence[int]
    in_sync: Sequence[int]
    low: int = 0
    high: int = 0

    @property
    def records(self) -> int:
        """How many offsets the log spans; fewer records where it is compacted."""
        return self.high - self.low


@dataclass(frozen=True)
class TopicState:
    name: str
    partitions: Sequence[PartitionState]


def create_topics(
    connection: Connection, topics: Sequence[Topic[Any]], timeout: float = 30.0
) -> list[str]:
    """Create those that are missing; their names. Replication 3 and min.insync.replicas 2 where
    there are three brokers or more, else 1 and 1. An existing topic is left as it is; one with
    fewer partitions than declared raises KafkaError."""
    admin = connection.admin()
    metadata = connection.metadata(timeout)
    missing = [topic for topic in topics if topic.name not in metadata.topics]
    for topic in topics:
        if topic in missing:
            continue
        have = len(metadata.topics[topic.name].partitions)
        if have != topic.partitions:
            raise KafkaError(
                f"topic {topic.name} has {have} partitions, not {topic.partitions}: adding some "
                "moves keys to other partitions and breaks their order, so that is yours to decide"
            )
    replication, in_sync = (3, 2) if len(metadata.brokers) >= 3 else (1, 1)
    futures = (
        admin.create_topics(
            [
                NewTopic(
                    topic.name,
                    num_partitions=topic.partitions,
                    replication_factor=replication,
                    config={"min.insync.replicas": str(in_sync), **topic.config},
                )
                for topic in missing
            ],
            operation_timeout=timeout,
        )
        if missing
        else {}
    )
    for name, future in futures.items():
        try:
            future.result(timeout)
        except KafkaException as error:
            if error.args[0].code() != Code.TOPIC_ALREADY_EXISTS:  # another process was faster
                raise KafkaError(
                    f"topic {name} could not be created: {error.args[0].str()}"
                ) from None
    if missing:
        require_topics(connection, [topic.name for topic in missing], timeout, grace=timeout)
    return [topic.name for topic in missing]


def require_topics(
    connection: Connection, names: Iterable[str], timeout: float = 8.0, *, grace: float = 0.0
) -> list[str]:
    """The names of all topics. Raises BrokerUnreachable, or TopicMissing with the names of those
    that do not exist. A broker hears of a topic a moment after the controller made it: `grace` is
    how many seconds that may take."""
    deadline = time.monotonic() + grace
    while True:
        existing = connection.metadata(timeout).topics
        missing = sorted(name for name in set(names) if name not in existing)
        if not missing or time.monotonic() > deadline:
            break
        time.sleep(HEARD_S)
    if missing:
        raise TopicMissing(
            f"topic{'s' if len(missing) > 1 else ''} {', '.join(missing)} "
            f"{'do' if len(missing) > 1 else 'does'} not exist"
        )
    return list(existing)


def topic_ids(connection: Connection, names: Sequence[str], timeout: float = 8.0) -> dict[str, str]:
    """Kafka's id of each topic (KIP-516): a topic that is deleted and made anew gets another."""
    if not names:
        return {}
    admin = connection.admin()
    futures = admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout)
    try:
        return {name: str(future.result(timeout).topic_id) for name, future in futures.items()}
    except KafkaException as error:
        raise BrokerUnreachable(f"topics cannot be described: {error.args[0].str()}") from None


def largest_record(connection: Connection, topic: str, timeout: float = 8.0) -> int | None:
    """The max.message.bytes of a topic; None where it may not be looked at. Raises KafkaError."""
    admin = connection.admin()
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        found = admin.describe_configs([resource], request_timeout=timeout)[resource]
        return int(found.result(timeout)["max.message.bytes"].value)
    except KafkaException as error:
        if error.args[0].code() == Code.TOPIC_AUTHORIZATION_FAILED:
            return None
        raise KafkaError(f"topic {topic} cannot be described: {error.args[0].str()}") from None


def describe_topics(
    connection: Connection, names: Sequence[str] = (), timeout: float = 8.0
) -> list[TopicState]:
    """The topics of those names, or all but Kafka's own; raises TopicMissing."""
    if names:
        require_topics(connection, names, timeout)
    metadata = connection.metadata(timeout)
    chosen = sorted(names) if names else sorted(n for n in metadata.topics if n[:2] != "__")
    consumer = connection.reader()
    try:
        return [
            TopicState(
                name,
                [
                    _partition(consumer, name, partition, timeout)
                    for _, partition in sorted(metadata.topics[name].partitions.items())
                ],
            )
            for name in chosen
        ]
    finally:
        consumer.close()  # type: ignore[no-untyped-call]


def _partition(consumer: Any, topic: str, partition: Any, timeout: float) -> PartitionState:
    leader = None if partition.leader < 0 else partition.leader
    low = high = 0
    if leader is not None:
        low, high = consumer.get_watermark_offsets(
            TopicPartition(topic, partition.id), timeout=timeout
        )
    return PartitionState(partition.id, leader, partition.replicas, partition.isrs, low, high)
