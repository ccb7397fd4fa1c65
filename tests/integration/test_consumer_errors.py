"""A broker's error in the middle: what the client does then neither passes a record over nor leaves
a partition unread (docs/decisions/0020)."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from confluent_kafka import Producer

from shop.db.database import Database
from shop.db.store import DatabaseStore
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.errors import StoreUnavailable
from shop.kafka.groups import committed_offsets
from shop.kafka.listener import ListenerRegistry, listener
from shop.kafka.topic import Topic
from shop.kafka.wire import EnvelopeCodec
from tests.proxies import Upset
from tests.waiting import eventually

TEXT = EnvelopeCodec[str]({"java.lang.String": str})

MakeTopic = Callable[..., Topic[str]]
Put = Callable[[Topic[str], int, str], None]


@pytest.fixture
def put(kafka: Connection) -> Put:
    """put(topic, partition, text): at once, before a pause of a group is over."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.list_topics(timeout=60)  # it is connected then

    def put(topic: Topic[str], partition: int, text: str) -> None:
        value = topic.codec.encode(text, f"Test({text})")  # its id too, without a header
        producer.produce(topic.name, value, "k", partition)
        assert producer.flush(60) == 0

    return put


def committed(kafka: Connection, group: str) -> int:
    """Of how many partitions the group has an offset."""
    return len(committed_offsets(kafka, [group])[group])


class SometimesAway(DatabaseStore):
    """A store that may be away, and knows whether somebody noticed."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.away, self.missed = threading.Event(), threading.Event()

    @contextmanager
    def transaction(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        if self.away.is_set():
            self.missed.set()
            raise StoreUnavailable("away")
        with super().transaction(*arguments, **options) as transaction:
            yield transaction


@pytest.fixture
def broker(kafka: Connection) -> Iterator[Upset]:
    with closing(Upset(kafka.bootstrap_servers)) as proxy:
        yield proxy


@pytest.fixture
def store(database: Database) -> SometimesAway:
    return SometimesAway(database)


@pytest.fixture
def fail(broker: Upset, caplog: pytest.LogCaptureFixture) -> Callable[[], None]:
    """fail(): fetches of partition 0 do, until the group has met one, and are good again."""

    def fail() -> None:
        caplog.set_level(logging.DEBUG, "shop.kafka.intake")
        broker.fails = 0
        eventually(lambda: "Fetch from broker" in caplog.text, "a fetch that fails")
        broker.fails = None
        fetched = broker.fetched
        eventually(lambda: broker.fetched > fetched + 1, "fetches that are good")

    return fail


class Group:
    """A listener on two partitions, behind the proxy; it may be started again."""

    def __init__(self, broker: Upset, store: DatabaseStore, topic: Topic[str], group: str) -> None:
        self.seen: list[str] = []

        @listener(topic, group=group)
        def on(text: str, ack: Acknowledgment) -> None:
            self.seen.append(text)
            ack.acknowledge()

        registry = ListenerRegistry()
        registry.add(on)
        self.container = ListenerContainer(
            Connection(broker.bootstrap_servers), group, registry.endpoints(group, store.work_type),
            store=store, session_timeout_ms=6000,
        )  # fmt: skip
        self.container.start()
        self.container.wait_until_assigned(60)

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *_: object) -> None:
        self.container.stop(timeout=60)


def put_while_away(store: SometimesAway, put: Put, topic: Topic[str], text: str) -> None:
    """To partition 0, while the group waits for the database, as "b" on partition 1 shows it."""
    store.away.set()
    put(topic, 1, "b")
    assert store.missed.wait(60)
    put(topic, 0, text)
    store.away.clear()


def test_partitions_whose_committed_offset_could_not_be_had_are_read(
    broker: Upset, store: SometimesAway, make_topic: MakeTopic, group: str, put: Put
) -> None:
    topic = make_topic(TEXT, partitions=2)
    put(topic, 0, "a")
    put(topic, 1, "b")
    broker.no_coordinator.set()
    with Group(broker, store, topic, group) as listening:
        eventually(lambda: sorted(listening.seen) == ["a", "b"])
    assert not broker.no_coordinator.is_set(), "it was asked"


def test_a_fetch_that_fails_and_a_database_that_is_away_pass_no_record_over(
    kafka: Connection, broker: Upset, store: SometimesAway, make_topic: MakeTopic, group: str,
    put: Put, fail: Callable[[], None],
) -> None:  # fmt: skip
    topic = make_topic(TEXT, partitions=2)
    with Group(broker, store, topic, group):
        eventually(lambda: committed(kafka, group) == 2, "the places where it begins")
    with Group(broker, store, topic, group) as listening:  # it has handled nothing
        fail()
        put_while_away(store, put, topic, "a0")
        eventually(lambda: "b" in listening.seen)
        put(topic, 0, "a1")
        eventually(lambda: "a1" in listening.seen)
    assert list(dict.fromkeys(text for text in listening.seen if text != "b")) == ["a0", "a1"]


def test_the_last_record_of_a_partition_is_read_after_a_fetch_that_failed(
    broker: Upset, store: SometimesAway, make_topic: MakeTopic, group: str, put: Put,
    fail: Callable[[], None],
) -> None:  # fmt: skip
    topic = make_topic(TEXT, partitions=2)
    put(topic, 0, "a0")
    with Group(broker, store, topic, group) as listening:
        eventually(lambda: listening.seen == ["a0"])
        fail()
        put_while_away(store, put, topic, "a1")
        eventually(lambda: set(listening.seen) == {"a0", "a1", "b"})
