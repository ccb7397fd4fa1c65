"""Topics as they are on the brokers: created on purpose, listed, described, required."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError as Code
from confluent_kafka import TopicCollection
from confluent_kafka.admin import ClusterMetadata, ConfigResource, NewTopic

from shop.kafka.answers import answered, code_of
from shop.kafka.connection import Connection
from shop.kafka.errors import BrokerUnreachable, KafkaError, TopicMissing
from shop.kafka.offsets import Bounds, log_bounds
from shop.kafka.store import Partition
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
    if missing:
        _create(connection, missing, metadata, timeout)
        require_topics(connection, [topic.name for topic in missing], timeout, grace=timeout)
    return [topic.name for topic in missing]


def _create(
    connection: Connection, topics: Sequence[Topic[Any]], metadata: ClusterMetadata, timeout: float
) -> None:
    """A cluster that starts shows some of its brokers first, so those named count too; until they
    are there, it refuses that many replicas."""
    brokers = max(len(metadata.brokers), len(connection.bootstrap_servers.split(",")))
    replication, in_sync = (3, 2) if brokers >= 3 else (1, 1)
    wanted = {
        topic.name: NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=replication,
            config={"min.insync.replicas": str(in_sync), **topic.config},
        )
        for topic in topics
    }
    admin = connection.admin()
    # Kafka makes its own topic for groups when somebody first asks for one, and the first groups
    # would wait some 3 s for it. What the answer is does not matter.
    _asked = admin.describe_consumer_groups(["shop-nobody"], request_timeout=timeout)
    deadline = time.monotonic() + timeout
    while wanted:
        for name, future in admin.create_topics(list(wanted.values())).items():
            try:
                answered(future, timeout, f"topic {name} could not be created")
            except KafkaError as error:
                code = code_of(error)
                if code == Code.INVALID_REPLICATION_FACTOR and time.monotonic() < deadline:
                    continue
                if code != Code.TOPIC_ALREADY_EXISTS:  # another process was faster
                    raise
            del wanted[name]
        if wanted:
            time.sleep(HEARD_S)


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
    what = "topics cannot be described"
    return {
        name: str(answered(future, timeout, what, BrokerUnreachable).topic_id)
        for name, future in futures.items()
    }


def largest_record(connection: Connection, topic: str, timeout: float = 8.0) -> int | None:
    """The max.message.bytes of a topic; None where it may not be looked at. Raises
    KafkaError."""
    admin = connection.admin()
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    future = admin.describe_configs([resource], request_timeout=timeout)[resource]
    try:
        found = answered(future, timeout, f"topic {topic} cannot be described")
    except KafkaError as error:
        if code_of(error) == Code.TOPIC_AUTHORIZATION_FAILED:
            return None
        raise
    return int(found["max.message.bytes"].value)


def describe_topics(
    connection: Connection, names: Sequence[str] = (), timeout: float = 8.0
) -> list[TopicState]:
    """The topics of those names, or all but Kafka's own. Raises TopicMissing, or KafkaError when
    not all leaders answer."""
    if names:
        require_topics(connection, names, timeout)
    metadata = connection.metadata(timeout)
    chosen = sorted(names) if names else sorted(n for n in metadata.topics if n[:2] != "__")
    led = [
        Partition(name, number)
        for name in chosen
        for number, partition in metadata.topics[name].partitions.items()
        if partition.leader >= 0
    ]
    bounds = log_bounds(connection, led, timeout)
    return [
        TopicState(
            name,
            [
                _partition(partition, bounds.get(Partition(name, number), Bounds(0, 0)))
                for number, partition in sorted(metadata.topics[name].partitions.items())
            ],
        )
        for name in chosen
    ]


def _partition(found: Any, bounds: Bounds) -> PartitionState:
    leader = None if found.leader < 0 else found.leader
    return PartitionState(found.id, leader, found.replicas, found.isrs, *bounds)
