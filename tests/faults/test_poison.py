"""Poison on every topic of a running shop: it becomes dead letters, and all else goes on."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from shop.containers import Shop
from shop.deadletters.model import LetterRow
from shop.kafka.letter import opened
from shop.kafka.topic import Topic, TopicPattern
from shop.settings import Settings
from shop.topics import ALL, DEADLETTER, NEW_ORDER, PIX, SEND_EMAIL
from tests.backends import Backend
from tests.commands import run
from tests.faults.harness import READERS_OF_NEW_ORDER, Faulty, faulty
from tests.integration.test_dead_letters import as_message
from tests.reading import count, read_all
from tests.waiting import eventually

POISON: list[bytes | None] = [
    b"not JSON",
    b"[1, 2]",
    b'{"type":"br.com.alura.ecommerce.Order","payload":"a text","correlationId":{"id":"X(1)"}}',
    b'{"type":"java.util.Nothing","payload":{},"correlationId":{"id":"X(2)"}}',
    b'{"type":"java.lang.String","payload":"\xff\xfe","correlationId":{"id":"X(3)"}}',
    b'{"type":"java.lang.String","payload":' + b"[" * 100_000,
    os.urandom(999_999) + b"\0",  # by chance it would end as JSON does: see poison_for
    None,
]
DERIVED = ("pix-verification", "pix-sum-by-key", "orders-per-minute")  # no group reads them
SOURCES = [topic for topic in ALL if topic is not DEADLETTER and topic.name not in DERIVED]


def test_poison_on_every_topic_stops_nobody_and_none_of_it_is_lost(
    backend: Backend, tmp_path: Path
) -> None:
    readers = Counter(readers_of_each())
    with faulty(tmp_path) as shop:
        shop.start("listen", "--all")
        send_poison(shop)
        shop.post(50)
        shop.settle()

        expected = Counter(
            {topic.name: readers[topic.name] * len(poison_for(topic)) for topic in SOURCES}
        )
        expected[SEND_EMAIL.name] += 1  # a good text, to nobody
        letters = eventually(
            lambda: (
                found
                if len(found := read_all(shop.kafka, DEADLETTER)) >= expected.total() + len(POISON)
                else None
            ),
            "all letters",
            60,
        )
        made = [letter for record in letters if (letter := opened(as_message(record))).group]
        assert Counter(letter.topic for letter in made) == expected
        for topic in SOURCES:
            values = Counter(letter.value for letter in made if letter.topic == topic.name)
            extra = values - Counter(dict.fromkeys(poison_for(topic), readers[topic.name]))
            assert extra.total() == (topic is SEND_EMAIL), topic
        database = backend.open("deadletters", tmp_path)
        everything = expected.total() + len(POISON)  # and what was on DEADLETTER itself
        eventually(lambda: count(database, LetterRow) == everything, "all are kept")
        database.close()

        found = run(shop.kafka, tmp_path, "verify", "--json")
        assert found.code == 0, found.stdout


def poison_for(topic: Topic[Any]) -> list[bytes | None]:
    """A payment without anything is one that ends with ERRO: any JSON object can be read as one."""
    if topic is not PIX:
        return POISON
    return [value for value in POISON if value is None or not value.endswith(b"}")]


def readers_of_each() -> list[str]:
    """The name of a topic for each group that decodes its records."""
    registry = Shop(settings=Settings()).registry()
    return [
        topic.name
        for group in registry.groups
        for source in registry.sources(group)
        for topic in SOURCES
        if not isinstance(source, TopicPattern) and source.name == topic.name
    ]


def send_poison(shop: Faulty) -> None:
    producer = Producer(
        {"bootstrap.servers": shop.kafka.bootstrap_servers, "message.max.bytes": 2_000_000}
    )
    for topic in (*SOURCES, DEADLETTER):
        for number, value in enumerate(POISON):
            producer.produce(topic.name, value, f"key{number}" if number % 2 else None)
    good = b'{"type":"java.lang.String","payload":"Hello","correlationId":{"id":"X(4)"}}'
    producer.produce(SEND_EMAIL.name, good, None)  # a null key, so no recipient
    producer.produce(PIX.name, b"{}", None)  # null keys: ERRO, and no letter
    assert producer.flush(60) == 0


def test_texts_that_a_database_may_not_take_stop_nobody_and_are_accounted_for(
    backend: Backend, tmp_path: Path
) -> None:
    """PostgreSQL has no NUL in a text and no long text in an index, where SQLite has both: there
    they make dead letters. Lone surrogates are nobody's text."""
    odd = [
        "nul-\\u0000-",
        "lone-\\ud800-",
        os.urandom(20_000).hex(),
        "%s %(name)s :name ' \\\" \\\\",
    ]
    with faulty(tmp_path) as shop:
        listeners = shop.start("listen", "--all")
        producer = Producer({"bootstrap.servers": shop.kafka.bootstrap_servers})
        for text in odd:
            for order_id, email, origin in (
                (text, "a@example.com", "Odd(1)"), ("odd", text, "Odd(2)"), ("o", "a@b", text)
            ):  # fmt: skip
                value = (
                    '{"type":"br.com.alura.ecommerce.Order","payload":{"orderId":"%s-%s","amount":1,'
                    '"email":"%s"},"correlationId":{"id":"%s"}}'
                )
                number = odd.index(text)
                producer.produce(NEW_ORDER.name, value % (order_id, number, email, origin))
        assert producer.flush(60) == 0
        shop.post(20)
        for order in shop.accepted:
            found = shop.client.get(f"/orders/{order}", params={"wait": 30}).json()
            assert found["status"] in ("approved", "rejected")
        eventually(
            lambda: all(shop.has_read_all(*reader) for reader in READERS_OF_NEW_ORDER),
            "all to be read",
        )
        assert listeners.poll() is None

        found = run(shop.kafka, tmp_path, "verify", "--json")
        assert found.code == 0, found.stdout
