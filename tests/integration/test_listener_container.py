from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.errors import (
    BrokerUnreachable,
    ListenerFailed,
    PositionLost,
    StoreUnavailable,
    TopicMissing,
)
from shop.kafka.listener import listener
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic, TopicPattern
from shop.kafka.wire import EnvelopeCodec, Message
from tests.waiting import eventually

TEXT = EnvelopeCodec[str]({"java.lang.String": str})

Listen = Callable[..., ListenerContainer]
MakeTopic = Callable[..., Topic[str]]


def committed(kafka: Connection, group: str, topic: Topic[Any], partition: int = 0) -> int:
    """The group's next offset as Kafka knows it; negative for none."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    try:
        (found,) = consumer.committed([TopicPartition(topic.name, partition)], timeout=60)
        return int(found.offset)
    finally:
        consumer.close()


def test_a_sync_send_tells_where_the_record_lies(
    template: KafkaTemplate, make_topic: MakeTopic
) -> None:
    topic = make_topic(TEXT)
    first = template.send(topic, "k", "a")
    second = template.send(topic, "k", "b")
    assert (first.topic, first.partition, first.offset) == (topic.name, 0, 0)
    assert second.offset == 1
    assert second.timestamp >= first.timestamp > 1_700_000_000_000


@pytest.mark.parametrize(("acks", "offset"), [("all", 0), ("1", 0), ("0", -1)])
def test_every_acks_setting_sends(
    kafka: Connection, make_topic: MakeTopic, acks: Any, offset: int
) -> None:
    topic = make_topic(TEXT)
    with KafkaTemplate(kafka, acks=acks) as template:
        assert template.send(topic, "k", "a").offset == offset
    consumer = kafka.reader()
    high = eventually(lambda: consumer.get_watermark_offsets(TopicPartition(topic.name, 0))[1])
    consumer.close()
    assert high == 1


def test_an_async_send_calls_back_with_the_same_result(
    template: KafkaTemplate, make_topic: MakeTopic
) -> None:
    seen: list[Any] = []
    future = template.send_async(
        make_topic(TEXT), "k", "a", callback=lambda f: seen.append(f.result())
    )
    assert future.result(60) == eventually(lambda: seen)[0]


def test_a_cancelled_send_does_no_harm_to_later_ones(
    template: KafkaTemplate, make_topic: MakeTopic
) -> None:
    topic = make_topic(TEXT)
    for number in range(100):
        template.send_async(topic, "k", str(number)).cancel()
    assert template.send(topic, "k", "last").offset == 100


def test_records_are_handled_in_order_and_committed_by_hand(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str
) -> None:
    topic = make_topic(TEXT)
    for number in range(1200):
        template.send_async(topic, "k", str(number))
    seen: list[str] = []

    @listener(topic, group=group)
    def on(text: str, ack: Acknowledgment) -> None:
        seen.append(text)
        ack.acknowledge()

    container = listen(on)
    eventually(lambda: len(seen) == 1200)
    container.stop(timeout=60)
    assert seen == [str(number) for number in range(1200)]
    assert committed(kafka, group, topic) == 1200


class BatchSizes:
    """A store that only notes how many records each transaction held."""

    work_type = dict

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def positions(self, *_: Any) -> dict[Any, int]:
        return {}

    def recognise(self, *_: Any) -> None:
        pass

    @contextmanager
    def transaction(self, *_: Any) -> Any:
        yield self

    def claim(self, receipts: list[str]) -> set[str]:
        self.sizes.append(len(receipts))
        return set(receipts)

    def work(self, *_: Any) -> dict[str, Any]:
        return {}

    def seen(self, *_: Any) -> set[str]:
        return set()


@pytest.mark.parametrize("most", [1, 10, 500])
def test_a_poll_takes_at_most_max_poll_records(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str, most: int
) -> None:
    topic = make_topic(TEXT)
    for _ in range(1000):
        template.send_async(topic, "k", "x")
    assert template.flush(60) == 0
    store = BatchSizes()

    @listener(topic, group=group)
    def on(_text: str) -> None:
        pass

    listen(on, store=store, max_poll_records=most)
    eventually(lambda: sum(store.sizes) == 1000)
    assert max(store.sizes) <= most
    assert len(store.sizes) < 1000 or most == 1


def test_earliest_begins_at_the_first_record_and_latest_after_the_last(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str
) -> None:
    topic = make_topic(TEXT)
    template.send(topic, "k", "before")
    earliest: list[str] = []
    latest: list[str] = []

    @listener(topic, group=group + "-earliest")
    def on_earliest(text: str) -> None:
        earliest.append(text)

    @listener(topic, group=group + "-latest")
    def on_latest(text: str) -> None:
        latest.append(text)

    listen(on_earliest)
    listen(on_latest, auto_offset_reset="latest")
    eventually(lambda: earliest)
    # Where "latest" begins is only known by what it sees: send until it sees something.
    eventually(lambda: template.send(topic, "k", "after") and latest)
    assert earliest[0] == "before"
    assert set(latest) == {"after"}


def test_latest_begins_where_it_was_when_the_group_began_also_after_a_restart(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str
) -> None:
    topic = make_topic(TEXT)
    template.send(topic, "k", "before")
    seen: list[str] = []

    @listener(topic, group=group)
    def on(text: str) -> None:
        seen.append(text)

    first = listen(on, auto_offset_reset="latest")
    eventually(lambda: committed(kafka, group, topic) == 1)
    first.stop(timeout=60)
    template.send(topic, "k", "while it was away")
    listen(on, auto_offset_reset="latest")
    assert eventually(lambda: seen) == ["while it was away"]


def test_none_refuses_to_guess_where_a_group_begins(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str
) -> None:
    topic = make_topic(TEXT)
    template.send(topic, "k", "a")

    @listener(topic, group=group)
    def on(_text: str) -> None:
        pytest.fail("nothing may be handled")

    container = listen(on, auto_offset_reset="none")
    failure = eventually(lambda: container.failure)
    assert isinstance(failure, PositionLost)
    assert "auto-offset-reset is none" in str(failure)


def test_a_nack_brings_the_record_again_and_other_partitions_go_on(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str
) -> None:
    topic = make_topic(TEXT, partitions=2)
    by_partition: dict[int, str] = {}
    number = 0
    while len(by_partition) < 2:
        by_partition.setdefault(
            template.send(topic, f"k{number}", f"m{number}").partition, f"k{number}"
        )
        number += 1
    refused_key, other_key = by_partition[0], by_partition[1]
    template.send(topic, refused_key, "refused")
    template.send(topic, refused_key, "behind")
    other = [f"other{n}" for n in range(50)]
    seen: list[str] = []
    refusing = True

    @listener(topic, group=group)
    def on(text: str, ack: Acknowledgment) -> None:
        if text == "refused" and refusing:
            ack.nack(0.05)
        else:
            seen.append(text)
            ack.acknowledge()

    listen(on)
    for text in other:
        template.send(topic, other_key, text)
    eventually(lambda: set(other) <= set(seen))
    assert "refused" not in seen
    assert "behind" not in seen
    refusing = False
    eventually(lambda: "behind" in seen)
    assert seen.index("refused") < seen.index("behind")
    assert Counter(seen)["refused"] == 1


def test_a_record_without_a_word_comes_again_and_its_offset_is_not_committed(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str
) -> None:
    topic = make_topic(TEXT)
    for text in ("first", "silent", "last"):
        template.send(topic, "k", text)
    calls: Counter[str] = Counter()

    @listener(topic, group=group)
    def on(text: str, ack: Acknowledgment) -> None:
        calls[text] += 1
        if text != "silent":
            ack.acknowledge()

    container = listen(on)
    eventually(lambda: calls["silent"] >= 3)
    container.stop(timeout=60)
    assert calls["first"] == 1
    assert calls["last"] == 0
    assert committed(kafka, group, topic) == 1


def test_a_record_that_keeps_failing_stops_the_group_with_all_before_it_done(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str
) -> None:
    topic = make_topic(TEXT)
    for number in range(10):
        template.send(topic, "k", str(number))
    done: list[str] = []
    told: list[str] = []

    @listener(topic, group=group)
    def on(text: str, ack: Acknowledgment) -> None:
        if text == "7":
            raise ValueError("seven")
        done.append(text)
        ack.acknowledge()

    container = listen(on, on_failure=lambda group, error: told.append(f"{group}: {error}"))
    failure = eventually(lambda: container.failure)
    container.stop(timeout=60)
    assert isinstance(failure, ListenerFailed)
    assert f"{topic.name}[0] at 7" in str(failure)
    assert "ValueError: seven" in str(failure)
    assert told == [f"{group}: {failure}"]
    assert done == [str(number) for number in range(7)]
    assert committed(kafka, group, topic) == 7


def test_a_record_that_is_no_envelope_stops_the_group_at_once(
    kafka: Connection, make_topic: MakeTopic, listen: Listen, group: str
) -> None:
    topic = make_topic(TEXT)
    admin = kafka.client_config("test")
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers} | admin)
    producer.produce(topic.name, b"\xff not JSON")
    producer.flush()

    @listener(topic, group=group)
    def on(_text: str) -> None:
        pytest.fail("nothing may be handled")

    container = listen(on)
    assert "not an envelope" in str(eventually(lambda: container.failure))


def test_a_position_that_the_log_no_longer_has_stops_the_group(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str
) -> None:
    topic = make_topic(TEXT)
    template.send(topic, "k", "a")
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic.name, 0, 100)], asynchronous=False)
    consumer.close()

    @listener(topic, group=group)
    def on(_text: str) -> None:
        pytest.fail("nothing may be handled")

    container = listen(on)
    failure = eventually(lambda: container.failure)
    assert isinstance(failure, PositionLost)
    assert "would go on at 100" in str(failure)
    assert "the log holds 0 to 1" in str(failure)


def test_two_containers_share_the_partitions_and_one_takes_over_from_the_other(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str
) -> None:
    topic = make_topic(TEXT, partitions=4)
    partitions: dict[str, set[int]] = {"a": set(), "b": set()}
    handled: Counter[str] = Counter()

    def service(name: str) -> Any:
        @listener(topic, group=group, concurrency=2)
        def on(message: Message[str], ack: Acknowledgment) -> None:
            partitions[name].add(message.partition)
            handled[message.event] += 1
            ack.acknowledge()

        return on

    first = listen(service("a"))
    sent = 0

    def send_some() -> None:
        nonlocal sent
        for _ in range(20):
            template.send(topic, f"k{sent}", str(sent))
            sent += 1

    listen(service("b"))
    eventually(lambda: send_some() or (partitions["a"] and partitions["b"]))
    first.stop(timeout=60)
    partitions["b"].clear()
    eventually(lambda: send_some() or len(partitions["b"]) == 4)
    eventually(lambda: len(handled) == sent)


def test_a_pattern_takes_in_topics_created_later(
    kafka: Connection, template: KafkaTemplate, listen: Listen, group: str
) -> None:
    prefix = group.replace("group", "PATTERN")
    seen: set[str] = set()

    @listener(TopicPattern(f"{prefix}.*", TEXT), group=group)
    def on(message: Message[str], ack: Acknowledgment) -> None:
        seen.add(message.topic)
        ack.acknowledge()

    early = Topic(f"{prefix}-early", TEXT, partitions=1)
    create_topics(kafka, [early])
    listen(on)
    template.send(early, "k", "a")
    eventually(lambda: early.name in seen)
    late = Topic(f"{prefix}-late", TEXT, partitions=1)
    create_topics(kafka, [late])
    template.send(late, "k", "a")
    eventually(lambda: late.name in seen)


def test_a_missing_topic_and_an_absent_broker_fail_at_the_start(
    kafka: Connection, listen: Listen, group: str
) -> None:
    @listener(Topic("NO-SUCH-TOPIC", TEXT), group=group)
    def on(_text: str) -> None:
        pytest.fail("nothing may be handled")

    with pytest.raises(TopicMissing, match="NO-SUCH-TOPIC does not exist"):
        listen(on)
    with pytest.raises(BrokerUnreachable, match="nothing answers there"):
        Connection("127.0.0.1:1").metadata(timeout=3)


def test_a_store_that_is_away_is_waited_for(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str
) -> None:
    topic = make_topic(TEXT)
    for number in range(20):
        template.send(topic, "k", str(number))
    seen: list[str] = []

    class Away(BatchSizes):
        away = True
        asked = 0

        @contextmanager
        def transaction(self, *_: Any) -> Any:
            self.asked += 1
            if self.away:
                raise StoreUnavailable("the disk is full")
            yield self

    store = Away()

    @listener(topic, group=group)
    def on(text: str) -> None:
        seen.append(text)

    container = listen(on, store=store)
    eventually(lambda: store.asked >= 3)
    assert container.trouble == "the disk is full"
    assert seen == []
    store.away = False
    eventually(lambda: len(seen) == 20)
    assert seen == [str(number) for number in range(20)]
    assert eventually(lambda: container.trouble is None)
