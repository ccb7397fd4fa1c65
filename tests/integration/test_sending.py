"""What counts as sent is in the log, in order, at the offset that is told."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing

import pytest

from shop.db.database import Database
from shop.db.outbox import write_outbox
from shop.db.relay import Relay, outbox_size
from shop.kafka import template
from shop.kafka.connection import Connection
from shop.kafka.errors import SendFailed
from shop.kafka.outbound import outbound
from shop.kafka.template import KafkaTemplate, SendResult
from shop.kafka.topic import Topic
from shop.kafka.wire import EnvelopeCodec
from tests.proxies import Unready
from tests.reading import read_all
from tests.waiting import eventually

TEXT = EnvelopeCodec[str]({"java.lang.String": str})
TEXTS = [str(number) for number in range(100)]

MakeTopic = Callable[..., Topic[str]]


@pytest.fixture
def unready(kafka: Connection) -> Iterator[Unready]:
    with closing(Unready(kafka.bootstrap_servers)) as proxy:
        yield proxy


def in_log(kafka: Connection, topic: Topic[str]) -> list[tuple[int, str]]:
    """Offsets and texts."""
    return [
        (record.offset(), topic.codec.decode(record.value())[0])
        for record in read_all(kafka, topic)
    ]


def send_all(
    sender: KafkaTemplate, topic: Topic[str], unready: Unready
) -> list[Future[SendResult]]:
    """The texts, all but the first while that is about to be refused."""
    first = sender.send_async(topic, "k", TEXTS[0])
    eventually(lambda: unready.refused)
    return [first, *(sender.send_async(topic, "k", text) for text in TEXTS[1:])]


def test_a_record_that_a_partition_without_a_leader_refused_comes_before_those_behind_it(
    kafka: Connection, unready: Unready, make_topic: MakeTopic
) -> None:
    topic = make_topic(TEXT)
    with KafkaTemplate(Connection(unready.bootstrap_servers)) as sender:
        offsets = [send.result(60).offset for send in send_all(sender, topic, unready)]
    assert unready.refused == {topic.name.encode(): 1}
    assert offsets == list(range(len(TEXTS)))
    assert in_log(kafka, topic) == list(enumerate(TEXTS))


def test_what_the_client_only_passed_over_does_not_count_as_sent(
    kafka: Connection, unready: Unready, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka calls records delivered that were refused, once the broker has taken those behind
    them: docs/decisions/0019."""
    monkeypatch.setattr(template, "IN_FLIGHT", 5)
    topic = make_topic(TEXT)
    with KafkaTemplate(Connection(unready.bootstrap_servers)) as sender:
        first, *others = send_all(sender, topic, unready)
        error = first.exception(60)
        offsets = [send.result(60).offset for send in others]
    assert isinstance(error, SendFailed)
    assert "no offset" in str(error)
    assert in_log(kafka, topic) == list(zip(offsets, TEXTS[1:], strict=True))


def test_an_outbox_keeps_what_was_only_passed_over(
    kafka: Connection, unready: Unready, make_topic: MakeTopic, database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(template, "IN_FLIGHT", 5)
    topic = make_topic(TEXT)
    with database.write() as connection:
        write_outbox(connection, [outbound(topic, "k", "1", correlation_id="c")])
    with KafkaTemplate(Connection(unready.bootstrap_servers), timeout_s=0) as sender:
        relay = Relay(database, sender)
        relay.start()
        eventually(lambda: unready.refused)
        sender.send(topic, "k", "2")
        eventually(lambda: outbox_size(database) == (0, 0))
        relay.stop()
    assert in_log(kafka, topic) == [(0, "2"), (1, "1")]
