"""The audit trail, held against SIGKILL: every record of every topic once, byte for byte."""

from pathlib import Path
from typing import Any, TypeAlias

from confluent_kafka import Consumer, Producer, TopicPartition

from shop.kafka.admin import create_topics
from shop.kafka.topic import Topic
from shop.log.content import ContentCodec
from shop.topics import ALL
from tests.backends import Backend
from tests.faults.harness import PATIENCE_S, Faulty, faulty
from tests.waiting import eventually

RECORDS = 20_000
KILLS = 4

TOPICS = [topic for topic in ALL if topic.name.startswith("ECOMMERCE_")]
LATE = Topic("ECOMMERCE_X", ContentCodec())
STRANGE = [None, b"", b"null", b"\xff\xfe", b"[" * 100_000, b"x" * 900_000]
Kept: TypeAlias = list[tuple[Any, ...]]


def test_a_log_service_killed_while_records_flow_keeps_each_once_byte_for_byte(
    backend: Backend, tmp_path: Path
) -> None:
    with faulty(tmp_path) as shop:
        producer = Producer({"bootstrap.servers": shop.kafka.bootstrap_servers})
        for _ in range(KILLS):
            listener = shop.start("listen", "--group", "log", "--instance", "only")
            before = kept(shop)
            produce(shop, producer, RECORDS // KILLS)
            least = before + shop.moments.randrange(1, RECORDS // KILLS)
            eventually(lambda at=least: kept(shop) >= at, f"{least} records kept", PATIENCE_S)
            shop.kill(listener)
        assert producer.flush(60) == 0
        shop.start("listen", "--group", "log", "--instance", "only")
        eventually(lambda: kept(shop) >= RECORDS, "all records kept", PATIENCE_S)
        create_topics(shop.kafka, [LATE])
        for value in STRANGE:
            producer.produce(LATE.name, value)
        assert producer.flush(60) == 0
        everything = RECORDS + len(STRANGE)
        eventually(lambda: kept(shop) >= everything, "the topic that joined", PATIENCE_S)
        assert trail(shop) == sorted(on_the_topics(shop, everything))


def produce(shop: Faulty, producer: Producer, count: int) -> None:
    """Bytes of any kind, some null, from now on and in the background."""
    for _ in range(count):
        number = shop.moments.randrange(RECORDS)
        key = None if number % 7 == 0 else b"\xff\x00-%d" % (number % 100)
        value = None if number % 11 == 0 else shop.moments.randbytes(number % 500)
        producer.produce(shop.moments.choice(TOPICS).name, value, key)
    producer.poll(0)


def on_the_topics(shop: Faulty, count: int) -> Kept:
    consumer = Consumer({"bootstrap.servers": shop.kafka.bootstrap_servers, "group.id": "audit"})
    topics = [*TOPICS, LATE]
    consumer.assign([TopicPartition(t.name, n, 0) for t in topics for n in range(t.partitions)])
    found: Kept = []
    while len(found) < count:
        for r in consumer.consume(5000, 1.0):
            assert r.error() is None, r.error()
            where = r.topic(), r.partition(), r.offset()
            found.append((*where, r.timestamp()[1], r.key(), r.value()))
    consumer.close()
    return found


def kept(shop: Faulty) -> int:
    return shop.number("log", "SELECT count(*) FROM audit")


def trail(shop: Faulty) -> Kept:
    columns = 'topic, partition, "offset", timestamp, key, value'
    query = f'SELECT {columns} FROM audit ORDER BY topic, partition, "offset"'
    return shop.rows("log", query)
