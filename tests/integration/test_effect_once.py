"""Receipts, effects, outbox and positions in one transaction: on a real database and broker."""

import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select, update

from shop.db.database import Database
from shop.db.outbox import write_outbox
from shop.db.relay import Relay, outbox_size
from shop.db.store import DatabaseStore
from shop.db.tables import outbox, position, receipt
from shop.db.work import Work
from shop.fraud.model import Decision
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.errors import Fenced, PositionLost
from shop.kafka.listener import listener
from shop.kafka.outbound import OutboundRecord, outbound
from shop.kafka.store import Move, Partition
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from shop.kafka.wire import EnvelopeCodec, Message
from tests.backends import stranger
from tests.reading import count, event_id, read_all
from tests.waiting import eventually

TEXT = EnvelopeCodec[str]({"java.lang.String": str})

Listen = Callable[..., ListenerContainer]
MakeTopic = Callable[..., Topic[str]]


@pytest.fixture
def relay(kafka: Connection, database: Database) -> Iterator[Relay]:
    with KafkaTemplate(kafka, timeout_s=0, name="relay") as template:
        relay = Relay(database, template)
        relay.start()
        yield relay
        relay.stop()


def decider(source: Topic[str], target: Topic[str], group: str, **options: Any) -> Any:
    """A listener that writes one row and sends one event per record."""

    @listener(source, group=group, **options)
    def decide(text: str, work: Work, ack: Acknowledgment) -> None:
        if text.startswith("bad"):
            raise ValueError(text)
        work.add(Decision, order_id=text, amount=Decimal("0.10"), is_fraud=False)
        work.send(target, text, f"decided {text}")
        ack.acknowledge()

    return decide


def test_each_record_has_one_row_and_one_published_event(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    database: Database, store: DatabaseStore, relay: Relay,
) -> None:  # fmt: skip
    source, target = make_topic(TEXT, partitions=3), make_topic(TEXT, partitions=3)
    for number in range(1000):
        template.send_async(source, str(number), str(number))
    listen(decider(source, target, group, concurrency=2), store=store)
    eventually(lambda: count(database, Decision) == 1000 and count(database, outbox) == 0)
    published = read_all(kafka, target)
    assert Counter(TEXT.decode(r.value())[0] for r in published) == Counter(
        f"decided {n}" for n in range(1000)
    )
    assert len({event_id(r) for r in published}) == 1000
    with database.read() as connection:
        assert connection.scalar(select(func.sum(position.c.next_offset))) == 1000


def test_a_record_published_twice_is_handled_once(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    database: Database, store: DatabaseStore,
) -> None:  # fmt: skip
    source, target = make_topic(TEXT), make_topic(TEXT)
    record = outbound(source, "k", "a", correlation_id="Test(1)")
    for _ in range(3):
        template.publish(record, lambda *_: None)
    assert template.flush(60) == 0
    listen(decider(source, target, group), store=store)
    last = template.send(source, "k", "last")
    eventually(lambda: count(database, Decision) == 2)
    assert last.offset == 3
    assert count(database, outbox) == 2


def test_a_listener_may_say_what_makes_its_effect_one(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    database: Database, store: DatabaseStore,
) -> None:  # fmt: skip
    source, target = make_topic(TEXT), make_topic(TEXT)
    for text in ("same", "same", "other", "same"):
        template.send(source, "k", text)  # each under an event id of its own

    def by_text(message: Message[str]) -> str:
        return message.event

    listen(decider(source, target, group, once=by_text), store=store)
    eventually(lambda: count(database, receipt) == 2)
    assert count(database, Decision) == 2
    assert count(database, outbox) == 2


def test_a_failing_record_takes_nothing_with_it(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    database: Database, store: DatabaseStore,
) -> None:  # fmt: skip
    source, target = make_topic(TEXT), make_topic(TEXT)
    for text in ("a", "b", "bad", "c"):
        template.send_async(source, "k", text)
    assert template.flush(60) == 0
    container = listen(decider(source, target, group), store=store)
    eventually(lambda: container.failure)
    container.stop(timeout=60)
    with database.read() as connection:
        rows = set(connection.scalars(select(Decision.order_id)))
        texts = [TEXT.decode(v)[0] for v in connection.scalars(select(outbox.c.value))]
        at = connection.scalar(select(position.c.next_offset))
    assert rows == {"a", "b"}
    assert texts == ["decided a", "decided b"]
    assert at == 2


def test_a_consumer_whose_position_was_moved_writes_nothing(
    database: Database, store: DatabaseStore
) -> None:
    partition = Partition("T", 0)
    with store.transaction("g", [Move(partition, None, 5)]) as transaction:
        transaction.claim(["first"])
    called = False
    for held in (None, 4, 6):
        with pytest.raises(Fenced), store.transaction("g", [Move(partition, held, 9)]):
            called = True
    assert not called
    assert store.positions("g", [partition]) == {partition: 5}


def test_a_fenced_consumer_goes_on_from_the_stored_position(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    database: Database, store: DatabaseStore,
) -> None:  # fmt: skip
    source, target = make_topic(TEXT), make_topic(TEXT)
    template.send(source, "k", "a")
    listen(decider(source, target, group), store=store)
    eventually(lambda: count(database, Decision) == 1)
    with database.write() as connection:  # as another consumer would, which handled two more
        connection.execute(update(position).values(next_offset=3))
    for text in ("handled elsewhere 1", "handled elsewhere 2", "mine"):
        template.send(source, "k", text)
    eventually(lambda: count(database, Decision) == 2)
    with database.read() as connection:
        assert set(connection.scalars(select(Decision.order_id))) == {"a", "mine"}


def test_a_topic_made_anew_is_refused_though_its_offsets_are_there(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    database: Database, store: DatabaseStore,
) -> None:  # fmt: skip
    source, target = make_topic(TEXT), make_topic(TEXT)
    template.send(source, "k", "a")
    listener = decider(source, target, group)
    container = listen(listener, store=store)
    eventually(lambda: count(database, Decision) == 1)
    container.stop(timeout=60)
    admin = kafka.admin()
    admin.delete_topics([source.name])[source.name].result(30)
    eventually(lambda: source.name not in kafka.metadata().topics)
    create_topics(kafka, [source])
    for text in ("b", "c"):  # now the log holds the position again, with another record before it
        template.send(source, "k", text)
    with pytest.raises(PositionLost, match="made anew"):
        listen(listener, store=store)


def test_a_receipt_with_a_nul_is_not_taken_for_another(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    database: Database, store: DatabaseStore,
) -> None:  # fmt: skip
    source = make_topic(TEXT)
    for text in ("a\0b", "a", "a\0c", "a\0b"):
        template.send(source, "k", text)
    seen: list[str] = []

    @listener(source, group=group, once=lambda message: message.event)
    def note(text: str, work: Work) -> None:
        seen.append(text)

    listen(note, store=store)
    eventually(lambda: len(seen) == 3)
    assert seen == ["a\0b", "a", "a\0c"]


def test_an_external_listener_stops_after_the_record_in_hand(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    database: Database, store: DatabaseStore,
) -> None:  # fmt: skip
    source = make_topic(TEXT)
    for number in range(100):
        template.send_async(source, "k", str(number))
    assert template.flush(60) == 0
    reached, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    @listener(source, group=group, external=True)
    def slow(text: str, ack: Acknowledgment) -> None:
        reached.set()
        go_on.wait(60)
        done.append(text)
        ack.acknowledge()

    container = listen(slow, store=store)
    assert reached.wait(60)
    container.ask_to_stop()
    go_on.set()
    assert container.stop(timeout=60)
    assert done == ["0"]
    assert store.positions(group, [Partition(source.name, 0)]) == {Partition(source.name, 0): 1}


def test_an_external_listener_is_settled_record_by_record(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    database: Database, store: DatabaseStore,
) -> None:  # fmt: skip
    source = make_topic(TEXT)
    for text in ("a", "b", "bad", "c"):
        template.send_async(source, "k", text)
    assert template.flush(60) == 0
    done: list[str] = []

    @listener(source, group=group, external=True)
    def effect(text: str, ack: Acknowledgment) -> None:
        if text == "bad":
            raise ValueError(text)
        done.append(text)
        ack.acknowledge()

    container = listen(effect, store=store)
    eventually(lambda: container.failure)
    assert done == ["a", "b"]
    assert count(database, receipt) == 2
    assert store.positions(group, [Partition(source.name, 0)]) == {Partition(source.name, 0): 2}


def test_a_record_the_broker_will_never_take_is_parked_and_the_others_go_out(
    kafka: Connection, make_topic: MakeTopic, database: Database, relay: Relay
) -> None:
    topic = make_topic(TEXT)
    noise = os.urandom(1_500_000).hex().encode()  # does not compress below the broker's limit
    with database.write() as connection:
        write_outbox(
            connection,
            [OutboundRecord(topic.name, "k", value, []) for value in (b'"a"', noise, b'"b"')],
        )
    eventually(lambda: outbox_size(database) == (0, 1))
    assert [record.value() for record in read_all(kafka, topic)] == [b'"a"', b'"b"']
    with database.read() as connection:
        assert "large" in (connection.scalar(select(outbox.c.parked)) or "")


def test_a_row_that_cannot_be_read_is_parked_and_the_others_go_out(
    kafka: Connection, make_topic: MakeTopic, database: Database, relay: Relay
) -> None:
    topic = make_topic(TEXT)
    rows = [
        {"topic": topic.name, "key": "k", "value": value, "headers": headers, "created_at": 0}
        for value, headers in ((b'"a"', b"\xc1 not msgpack"), (b'"b"', b"\x90"))
    ]
    with database.write() as connection:
        connection.execute(outbox.insert(), rows)
    eventually(lambda: outbox_size(database) == (0, 1))
    assert [record.value() for record in read_all(kafka, topic)] == [b'"b"']


def test_a_missing_topic_holds_up_only_its_own_records_and_loses_none(
    kafka: Connection, make_topic: MakeTopic, database: Database, relay: Relay
) -> None:
    topic, missing = make_topic(TEXT), Topic(f"LATER-{uuid4().hex[:8]}", TEXT, partitions=1)
    records = [OutboundRecord(name, "k", b'"x"', []) for name in (missing.name, topic.name)]
    with database.write() as connection:
        write_outbox(connection, records)
    eventually(lambda: len(read_all(kafka, topic)) == 1)
    assert outbox_size(database) in [(1, 0), (2, 0)]  # nothing is parked
    create_topics(kafka, [missing])
    eventually(lambda: outbox_size(database) == (0, 0), patience=60)
    assert [record.value() for record in read_all(kafka, missing)] == [b'"x"']


def test_one_relay_per_database_works_and_another_process_takes_over_when_it_dies(
    kafka: Connection, make_topic: MakeTopic, database: Database, relay: Relay, tmp_path: Path
) -> None:
    topic = make_topic(TEXT)
    eventually(lambda: relay.active)
    code = f"""
        import signal, sys
        from pathlib import Path
        from shop.databases import Databases
        from shop.db.relay import Relay
        from shop.settings import Settings
        from shop.kafka.connection import Connection
        from shop.kafka.template import KafkaTemplate
        relay = Relay(Databases(Settings(data_dir=Path({str(tmp_path)!r}))).of("fraud"),
                      KafkaTemplate(Connection({kafka.bootstrap_servers!r}), timeout_s=0))
        relay.start()
        for _ in range(50):  # a second: twice as long as it waits between two elections
            signal.sigtimedwait([], 0.02)
            assert not relay.active
        print("standing by", flush=True)
        while not relay.active:
            signal.sigtimedwait([], 0.02)
        print("active", flush=True)
        signal.pause()
    """
    other = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    try:
        with database.write() as connection:
            write_outbox(connection, [OutboundRecord(topic.name, "k", b'"1"', [])])
        eventually(lambda: len(read_all(kafka, topic)) == 1)
        assert other.stdout is not None
        assert other.stdout.readline() == "standing by\n"
        eventually(lambda: count(database, outbox) == 0)
        assert relay.stop()
        assert other.stdout.readline() == "active\n"
        with database.write() as connection:
            write_outbox(connection, [OutboundRecord(topic.name, "k", b'"2"', [])])
        eventually(lambda: len(read_all(kafka, topic)) == 2)
    finally:
        other.kill()
        other.wait()


def test_a_database_locked_by_a_stranger_is_waited_for(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    database: Database, store: DatabaseStore,
) -> None:  # fmt: skip
    source, target = make_topic(TEXT), make_topic(TEXT)
    container = listen(decider(source, target, group), store=store)
    with stranger(database):
        for text in ("a", "b"):
            template.send(source, "k", text)
        trouble = eventually(
            lambda: "not available" in (container.trouble or "") and container.trouble
        )
        assert database.shown in trouble
        assert "lock" in trouble
    eventually(lambda: count(database, Decision) == 2)
    assert eventually(lambda: container.trouble is None)
