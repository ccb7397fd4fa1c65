"""A group that listens to every topic of a pattern, on topics that come and go."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from shop.db.database import Database
from shop.db.store import DatabaseStore
from shop.db.tables import topic_read
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.errors import PositionLost
from shop.kafka.groups import describe_groups
from shop.kafka.listener import every_record, listener
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic, TopicPattern
from shop.kafka.wire import EnvelopeCodec, Message
from tests.waiting import eventually

TEXT = EnvelopeCodec[str]({"java.lang.String": str})

Start = Callable[..., ListenerContainer]


class Family:
    """Topics of one prefix, and a listener to all of them."""

    def __init__(self, kafka: Connection, template: KafkaTemplate, listen: Start) -> None:
        self.prefix = f"FAMILY-{uuid4().hex[:8]}"
        self.group = f"group-{self.prefix}"
        self.seen: list[tuple[str, str]] = []
        self._kafka = kafka
        self._template = template
        self._listen = listen

    def create(self, name: str, *texts: str) -> Topic[str]:
        topic = Topic(f"{self.prefix}-{name}", TEXT, partitions=1)
        create_topics(self._kafka, [topic])
        self.send(topic, *texts)
        return topic

    def send(self, topic: Topic[str], *texts: str) -> None:
        for text in texts:
            self._template.send(topic, None, text)

    def delete(self, topic: Topic[str]) -> None:
        admin = self._kafka.admin()
        for future in admin.delete_topics([topic.name]).values():
            future.result(20)
        eventually(lambda: topic.name not in self._kafka.metadata().topics, "the deletion")

    def reads(self, topic: Topic[str]) -> bool:
        (state,) = describe_groups(self._kafka, [self.group])
        return any(p.topic == topic.name for m in state.members for p in m.partitions)

    def listen(self, **options: Any) -> ListenerContainer:
        pattern = TopicPattern(f"{self.prefix}-.*", TEXT)

        @listener(pattern, group=self.group, once=every_record)
        def note(message: Message[str]) -> None:
            self.seen.append((message.topic.removeprefix(self.prefix + "-"), message.event))

        return self._listen(note, **options)

    def listen_and_join(self, **options: Any) -> ListenerContainer:
        container = self.listen(**options)
        assert container.wait_until_assigned(30)
        return container

    def eventually_seen(self, *expected: tuple[str, str]) -> None:
        eventually(lambda: len(self.seen) >= len(expected), f"{expected}; seen {self.seen}")
        assert sorted(self.seen) == sorted(expected)


@pytest.fixture
def family(kafka: Connection, template: KafkaTemplate, listen: Start) -> Family:
    return Family(kafka, template, listen)


def test_a_group_whose_topics_do_not_exist_yet_is_ready_and_takes_them_when_they_come(
    family: Family,
) -> None:
    container = family.listen_and_join()
    assert container.trouble is None
    family.create("a", "1", "2")
    family.eventually_seen(("a", "1"), ("a", "2"))


@pytest.mark.parametrize("reset", ["latest", "none"])
def test_a_topic_that_joins_later_is_read_from_its_beginning(
    family: Family, store: DatabaseStore, reset: str
) -> None:
    if reset == "latest":
        family.create("early", "before the group began")
    family.listen_and_join(store=store, auto_offset_reset=reset)
    late = family.create("late", "1", "2")
    family.eventually_seen(("late", "1"), ("late", "2"))
    family.send(late, "3")
    family.eventually_seen(("late", "1"), ("late", "2"), ("late", "3"))


def test_a_topic_that_is_deleted_stops_nobody(family: Family, store: DatabaseStore) -> None:
    gone, stays = family.create("gone", "1"), family.create("stays", "1")
    container = family.listen_and_join(store=store)
    family.eventually_seen(("gone", "1"), ("stays", "1"))
    family.delete(gone)
    family.send(stays, "2")
    family.create("new", "1")
    family.eventually_seen(("gone", "1"), ("stays", "1"), ("stays", "2"), ("new", "1"))
    assert container.failure is None


def test_a_topic_that_joined_and_is_made_anew_stops_the_group_in_front_of_it(
    family: Family, store: DatabaseStore, database: Database
) -> None:
    container = family.listen_and_join(store=store)
    joined = family.create("joined", "1")
    family.eventually_seen(("joined", "1"))
    assert joined.name in known(database)
    family.delete(joined)
    eventually(lambda: not family.reads(joined), "that the deletion is noticed")
    family.create("joined", "other 1", "other 2")
    eventually(lambda: container.failure, "that it stops")
    assert isinstance(container.failure, PositionLost)
    with pytest.raises(PositionLost, match="joined"):
        family.listen(store=store)
    assert family.seen == [("joined", "1")], "no record was passed over"


def known(database: Database) -> set[str]:
    with database.read() as connection:
        return set(connection.scalars(select(topic_read.c.topic)))
