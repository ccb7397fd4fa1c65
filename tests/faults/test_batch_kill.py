"""A record for each of many users, held against SIGKILL: nobody left out, nobody doubled."""

from collections import Counter, defaultdict
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import KafkaException, TopicPartition

from shop.kafka.ids import derived_id
from shop.topics import SEND_MESSAGE_TO_ALL_USERS, USER_EMAIL, USER_GENERATE_READING_REPORT
from tests.backends import Backend
from tests.faults.harness import PATIENCE_S, Faulty, faulty
from tests.integration.test_effect_once import event_id
from tests.integration.test_fan_out import read_all
from tests.java import TEXT, JavaProducer, envelope
from tests.waiting import eventually

USERS = 100_000
KILLS = 5
TARGET = USER_GENERATE_READING_REPORT

# A number times a prime, modulo another one, is each number once, in no order.
SEED_USERS = """
    INSERT INTO users
    WITH RECURSIVE number(n) AS (
        SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM number WHERE n < :users
    )
    SELECT CAST(n * 7368787 % 15485863 AS TEXT) || '-user', 'user' || n || '@example.com', n
    FROM number
"""


def ask_as_java(shop: Faulty) -> str:
    """What the Java servlet sends, twice under one correlation id. The fan-out's id."""
    topic = SEND_MESSAGE_TO_ALL_USERS.name
    correlation_id = f"GenerateAllReportsServlet({uuid4()})-_{topic}({uuid4()})"
    producer = JavaProducer(shop.kafka)
    for _ in range(2):
        value = envelope(TEXT, f'"{TARGET}"', correlation_id)
        producer.send(topic, TARGET.name, value)
    producer.flush()
    return derived_id(correlation_id, topic)


def rows(shop: Faulty, query: str) -> list[Any]:
    return shop.rows("users", query)


def test_a_fan_out_killed_half_way_leaves_nobody_out_and_doubles_nobody(
    backend: Backend, tmp_path: Path
) -> None:
    with faulty(tmp_path) as shop, closing(shop.kafka.reader()) as reader:
        shop.rows("users", SEED_USERS, users=USERS)
        fan_out_id = ask_as_java(shop)

        known = 0

        def published() -> int:
            nonlocal known
            with suppress(KafkaException):  # of a broker too busy to be heard of
                known = sum(
                    reader.get_watermark_offsets(TopicPartition(TARGET.name, n), timeout=60)[1]
                    for n in range(TARGET.partitions)
                )
            return known

        for _ in range(KILLS):
            listeners = shop.start("listen", "--group", "batch")
            at = published() + shop.moments.randrange(1, USERS // (KILLS + 2))
            eventually(lambda at=at: published() >= at, f"record {at}", PATIENCE_S)
            shop.kill(listeners)
            assert rows(shop, "SELECT state FROM fan_out") == [("running",)], "killed in the middle"
        shop.start("listen", "--group", "batch")
        finished = "SELECT id, total, sent FROM fan_out WHERE state = 'finished'"
        eventually(lambda: rows(shop, finished), "the end of the fan-out", PATIENCE_S)
        assert rows(shop, finished) == [(fan_out_id, USERS, USERS)]
        audit(shop, fan_out_id)


def audit(shop: Faulty, fan_out_id: str) -> None:
    """By reading the topic: every user, under one event id each, whole."""
    users = dict(rows(shop, "SELECT uuid, email FROM users"))
    records = read_all(shop.kafka, TARGET)
    event_ids: dict[str, set[str]] = defaultdict(set)
    for record in records:
        user, correlation_id = TARGET.codec.decode(record.value())
        assert record.key().decode() == user.uuid
        assert dict(record.headers())[USER_EMAIL].decode() == users[user.uuid]
        assert "-Batch(" in str(correlation_id)
        event_ids[user.uuid].add(event_id(record))
    assert set(event_ids) == set(users), "every user, and nobody else"
    assert Counter(len(ids) for ids in event_ids.values()) == {1: USERS}, "under one event id"
    assert all(ids == {derived_id(fan_out_id, "batch", uuid)} for uuid, ids in event_ids.items())
    assert len(records) > USERS, "no kill came between a record and its cursor: nothing was tested"
    print(f"{shop.kills} kills, {len(records) - USERS} records published again")
