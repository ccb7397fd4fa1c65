"""A client that has lost its brokers for good is replaced: nothing is lost, nothing counts twice.

What librdkafka does then is simulated, by the calls that tell of it, so that it happens each time.
tests/faults/test_outages.py has real clients lose a real broker."""

import gc
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from confluent_kafka import KafkaError as Code

from shop.db.database import Database
from shop.db.outbox import write_outbox
from shop.db.relay import Relay
from shop.db.store import DatabaseStore
from shop.db.tables import outbox
from shop.db.work import Work
from shop.fraud.model import Decision
from shop.kafka import intake, template
from shop.kafka.client import GroupClient
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.listener import listener
from shop.kafka.lost import TIMES, Lost
from shop.kafka.outbound import outbound
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from shop.kafka.wire import EnvelopeCodec
from tests.reading import count, read_all
from tests.waiting import eventually

TEXT = EnvelopeCodec[str]({"java.lang.String": str})

Listen = Callable[..., ListenerContainer]
MakeTopic = Callable[..., Topic[str]]


class SlowToEnd:
    """librdkafka's client, which waits when it is ended: it may await an answer that never comes
    for as long as a rebalance takes."""

    def __init__(self, client: Any, done: threading.Event) -> None:
        self._client, self._done = client, done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def __del__(self) -> None:
        del self._client
        self._done.wait()


def test_a_client_counts_as_lost_when_others_reach_brokers_again_and_again(
    kafka: Connection,
) -> None:
    lost = Lost(kafka)
    assert [lost.seems_so() for _ in range(TIMES)] == [False] * (TIMES - 1) + [True]
    lost.found()
    assert not lost.seems_so()


def test_a_client_is_not_lost_where_nobody_reaches_a_broker() -> None:
    lost = Lost(Connection("127.0.0.1:1"))
    assert not any(lost.seems_so() for _ in range(TIMES + 1))


def test_a_group_goes_on_with_a_new_consumer(
    make_topic: MakeTopic, listen: Listen, group: str, database: Database,
    store: DatabaseStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    kafka: Connection,
) -> None:  # fmt: skip
    monkeypatch.setattr(intake, "PROBE_S", 0.05)
    topic = make_topic(TEXT, partitions=3)
    clients: list[GroupClient] = []
    healthy = GroupClient.topics_there

    def forgetful(self: GroupClient) -> Any:
        clients.append(self)
        return None

    @listener(topic, group=group, concurrency=2)
    def on(text: str, work: Work) -> None:
        work.add(Decision, order_id=text, amount=Decimal(1), is_fraud=False)

    enough, done = threading.Event(), threading.Event()
    container = listen(on, store=store)
    assert container.wait_until_assigned(30)
    gc.freeze()  # as the shop's processes do once they listen; no collection ends the old client
    with KafkaTemplate(kafka) as sender:

        def send() -> None:
            for number in range(2000):
                sender.send_async(topic, str(number), str(number))
                enough.wait(0.001)  # a pace

        sending = threading.Thread(target=send)
        sending.start()
        eventually(lambda: count(database, Decision) > 200)
        monkeypatch.setattr(GroupClient, "topics_there", forgetful)
        victim = container._consumers[0]._intake._client
        # No record may come in between: it is a sign of life.
        monkeypatch.setattr(victim, "consume", lambda _, __: (enough.wait(0.01), [])[1])
        victim.consumer._inner_consumer = SlowToEnd(victim.consumer._inner_consumer, done)
        victim._failed(Code(Code._ALL_BROKERS_DOWN))
        eventually(lambda: "has lost all its brokers" in caplog.text)
        assert set(clients) == {victim}
        monkeypatch.delattr(victim, "consume")
        monkeypatch.setattr(GroupClient, "topics_there", healthy)
        sending.join()
    eventually(lambda: count(database, Decision) == 2000, patience=60)
    eventually(lambda: container._consumers[0].positions, "its share of the partitions")
    done.set()
    gc.unfreeze()
    assert container.trouble is None
    assert "again in" not in caplog.text, "no record failed, so none came twice"


def test_an_outbox_is_published_to_its_end_by_a_new_producer(
    kafka: Connection, make_topic: MakeTopic, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template, "PROBE_S", 0.05)
    topic = make_topic(TEXT)
    with KafkaTemplate(kafka, timeout_s=0) as sender:
        relay = Relay(database, sender)
        relay.start()
        old = sender._producer

        monkeypatch.setattr(sender, "_reaches_brokers", lambda: sender._producer is not old)
        for batch in range(10):
            texts = [f"{batch}-{number}" for number in range(200)]
            records = [outbound(topic, "k", t, correlation_id="C", event_id=t) for t in texts]
            with database.write() as connection:
                write_outbox(connection, records)
            if batch == 5:
                sender._reachability.failed(Code(Code._ALL_BROKERS_DOWN))
        eventually(lambda: sender._producer is not old)
        eventually(lambda: count(database, outbox) == 0)
        relay.stop()
    seen = list(dict.fromkeys(TEXT.decode(record.value())[0] for record in read_all(kafka, topic)))
    assert seen == [f"{batch}-{n}" for batch in range(10) for n in range(200)]
