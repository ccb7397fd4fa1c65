"""`shop topics tail` and `send`, on topics of any content."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from shop.kafka import browse
from shop.kafka.browse import TopicReader
from shop.kafka.connection import Connection
from shop.kafka.groups import committed_offsets, group_names
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from shop.kafka.wire import EnvelopeCodec
from shop.topics import NEW_ORDER, ORDER_APPROVED, ORDER_REJECTED, PIX, SEND_EMAIL
from tests.commands import Said, ShopPlace, environment, run
from tests.java import AMOUNT, JavaProducer

TEXT = EnvelopeCodec[str]({"java.lang.String": str})
NOON = 1_795_348_800_000  # 2026-11-22T12:00:00Z

Tail = Callable[..., list[dict[str, Any]]]
MakeTopic = Callable[..., Topic[str]]


def produce(kafka: Connection, topic: Topic[Any], records: Sequence[tuple[Any, ...]]) -> None:
    """(partition, milliseconds after NOON, key, value)"""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for partition, after, key, value in records:
        producer.produce(topic.name, value, key, partition, timestamp=NOON + after)
    assert producer.flush(30) == 0


@pytest.fixture
def tail(kafka: Connection, tmp_path: Path) -> Tail:
    """tail(topic, *options): the objects that `topics tail --json` prints."""

    def tail(topic: Topic[Any], *options: str) -> list[dict[str, Any]]:
        said = run(kafka, tmp_path, "topics", "tail", topic.name, "--json", *options)
        assert said.code == 0, said.stderr
        return [json.loads(line) for line in said.stdout.splitlines()]

    return tail


def values(records: list[dict[str, Any]]) -> list[Any]:
    return [record["payload"] for record in records]


def one_line(said: Said, code: int = 1) -> str:
    assert said.stderr.startswith("shop: "), said
    assert said.stderr.count("\n") == 1
    assert said.code == code
    return said.stderr


def test_the_last_records_of_all_partitions_are_shown_in_the_order_of_their_time(
    kafka: Connection, make_topic: MakeTopic, tail: Tail
) -> None:
    topic = make_topic(TEXT, partitions=3)
    produce(kafka, topic, [(n % 3, n, "k", str(n)) for n in range(100)])

    assert values(tail(topic)) == list(range(90, 100))
    assert values(tail(topic, "-n", "2")) == [98, 99]
    assert values(tail(topic, "-n", "2", "--partition", "1")) == [94, 97]
    assert values(tail(topic, "--from", "beginning")) == list(range(100))


def test_a_topic_is_shown_from_an_offset_a_time_or_the_end_on(
    kafka: Connection, make_topic: MakeTopic, tail: Tail
) -> None:
    topic = make_topic(TEXT, partitions=2)
    produce(kafka, topic, [(n % 2, n * 1000, "k", str(n)) for n in range(10)])

    assert values(tail(topic, "--from", "3")) == [6, 7, 8, 9]
    assert values(tail(topic, "--from", "3", "-n", "1")) == [6]
    assert values(tail(topic, "--from", "2026-11-22T12:00:07.5Z")) == [8, 9]
    assert values(tail(topic, "--from", "2026-11-22T13:00:08+01:00")) == [8, 9]
    assert values(tail(topic, "--from", "2100-01-01")) == []
    assert values(tail(topic, "--from", "20000d")) == list(range(10))
    assert values(tail(topic, "--from", "end")) == []


def test_filters_look_back_until_enough_is_found(
    kafka: Connection, make_topic: MakeTopic, tail: Tail
) -> None:
    topic = make_topic(TEXT, partitions=2)
    mine = TEXT.encode("mine", "Order(4711)-_T(1)")
    produce(kafka, topic, [(0, 0, "me", mine)] + [(n % 2, n, "k", "x") for n in range(1, 500)])

    assert values(tail(topic, "--key", "me")) == ["mine"]
    assert values(tail(topic, "--correlation-id", "4711")) == ["mine"]
    assert values(tail(topic, "--correlation-id", "4711", "--from", "beginning")) == ["mine"]
    assert tail(topic, "--key", "nobody") == []


def test_a_partition_far_ahead_in_time_waits_for_the_others(
    kafka: Connection, make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browse, "MOST_WAITING", 100)
    topic = make_topic(TEXT, partitions=2)
    produce(kafka, topic, [(0, 100_000 + n, "k", str(n)) for n in range(3000)])
    produce(kafka, topic, [(1, n, "k", str(n)) for n in range(3000)])

    reader = TopicReader(kafka, topic.name)
    read = [(record.partition, record.offset) for record in reader.read(reader.beginning)]
    reader.close()

    assert read == [(1, n) for n in range(3000)] + [(0, n) for n in range(3000)]


def test_a_log_with_gaps_and_markers_is_read_to_its_end(
    kafka: Connection, make_topic: MakeTopic, tail: Tail
) -> None:
    topic = make_topic(TEXT)
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": str(topic)}
    )
    producer.init_transactions(30)
    for number in range(6):
        producer.begin_transaction()
        producer.produce(topic.name, str(number), "k")
        producer.abort_transaction(30) if number % 2 else producer.commit_transaction(30)

    assert values(tail(topic)) == [0, 2, 4]
    assert values(tail(topic, "-n", "2")) == [2, 4]
    assert values(tail(topic, "--from", "beginning")) == [0, 2, 4]


def test_following_shows_what_a_transaction_that_is_open_at_the_start_commits_later(
    kafka: Connection, make_topic: MakeTopic
) -> None:
    topic = make_topic(TEXT)
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": str(topic)}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic.name, "in the transaction", "k")
    producer.flush(30)
    produce(kafka, topic, [(0, 0, "k", "beside it")])

    with closing(TopicReader(kafka, topic.name)) as reader:
        assert list(reader.read(reader.beginning)) == []
        coming = reader.follow()
        producer.commit_transaction(30)
        produce(kafka, topic, [(0, 0, "k", "after")])
        values = (record.value for record in coming)
        followed = list(takewhile(lambda value: value != b"after", values))

    assert followed == [b"in the transaction", b"beside it"]


def test_an_empty_topic_shows_nothing(make_topic: MakeTopic, tail: Tail) -> None:
    topic = make_topic(TEXT, partitions=3)

    assert tail(topic) == tail(topic, "--from", "beginning") == tail(topic, "--from", "0") == []


def test_following_goes_on_with_what_comes_until_ctrl_c(
    kafka: Connection, make_topic: MakeTopic, template: KafkaTemplate, tmp_path: Path
) -> None:
    topic = make_topic(TEXT, partitions=2)
    for number in range(3):
        template.send(topic, "k", f"before {number}")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "shop.cli", "topics", "tail", topic.name, "-f", "-n", "2"],
        env=environment(kafka, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stderr
    assert ["before 1" in process.stdout.readline(), "before 2" in process.stdout.readline()]

    for text in ("after 0", "after 1"):
        template.send(topic, "k", text)
        assert text in process.stdout.readline()

    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert process.stdout.read() == process.stderr.read() == ""


def test_what_cannot_be_shown_from_is_one_line(
    kafka: Connection, make_topic: MakeTopic, tmp_path: Path
) -> None:
    topic = make_topic(TEXT, partitions=2)
    produce(kafka, topic, [(0, 0, "k", "1")])

    def refused(*arguments: str, code: int = 1) -> str:
        return one_line(run(kafka, tmp_path, "topics", "tail", *arguments), code)

    assert "0 to 1 in [0], 0 to 0 in [1]" in refused(topic.name, "--from", "5")
    assert "has partitions 0 to 1, not 7" in refused(topic.name, "--partition", "7")
    assert "`shop topics list`" in refused("nobody-has-it")
    assert "nobody-has-it" not in kafka.metadata().topics
    nonsense = run(kafka, tmp_path, "topics", "tail", topic.name, "--from", "yesterday")
    assert nonsense.code == 2


def test_looking_leaves_no_group_behind(
    kafka: Connection, make_topic: MakeTopic, tail: Tail
) -> None:
    topic = make_topic(TEXT)
    produce(kafka, topic, [(0, 0, "k", "1")])
    tail(topic)

    names = group_names(kafka)  # those of other tests come and go
    offsets = committed_offsets(kafka, names)
    readers = [group for group in names if any(p.topic == topic.name for p in offsets[group])]
    assert "shop-reader" not in names
    assert readers == []


def test_records_of_the_shop_are_shown_decoded_with_every_digit(shop_place: ShopPlace) -> None:
    java = JavaProducer(shop_place.kafka)
    hop = java.new_order("eva@example.com", order_id="o-1")
    identifier = java.pix("ana", None)
    java.flush()

    line = shop_place.run("topics", "tail", NEW_ORDER.name, "--key", "eva@example.com").stdout
    assert f'"amount":{AMOUNT},' in line
    assert line.rstrip().endswith(hop)
    assert line.count("\n") == 1
    (order,) = shop_place.tail(NEW_ORDER.name, "--correlation-id", hop[13:49])
    assert order["type"] == "br.com.alura.ecommerce.Order"
    assert order["payload"]["orderId"] == "o-1"
    assert (order["correlationId"], order["eventId"], order["headers"]) == (hop, None, [])
    (pix,) = shop_place.tail(PIX.name, "--key", identifier)
    assert pix["payload"]["chaveDestino"] is None
    assert pix["headers"] == [{"name": "__TypeId__", "value": "com.alura.pix.dto.PixDTO"}]
    assert "problem" not in order | pix


@pytest.mark.parametrize(
    ("value", "shown", "problem"),
    [
        (None, "(null)", "null"),
        (b"\xff\xfe\x1b[2J", "\\xff\\xfe\\x1b[2J", "not an envelope"),
        (b"not\njson", "not\\njson", "not an envelope"),
        (b'{"type":"java.lang.Thread","payload":1}', "1", "java.lang.Thread"),
        (b"[" * 100_000, "[[[[", "not an envelope"),
        (b"", "", "not an envelope"),
    ],
)
def test_what_is_not_what_the_topic_carries_is_shown_as_it_is(
    shop_place: ShopPlace, value: bytes | None, shown: str, problem: str
) -> None:
    java = JavaProducer(shop_place.kafka)
    java.send(ORDER_REJECTED.name, None, value, [("h", b"\xff")])
    java.flush()

    line = shop_place.run("topics", "tail", ORDER_REJECTED.name, "-n", "1").stdout
    assert "(no key)" in line
    assert f") {shown}" in line
    assert problem in line
    assert line.count("\n") == 1
    assert len(line) < 1000
    (record,) = shop_place.tail(ORDER_REJECTED.name, "-n", "1")
    assert problem in record["problem"]
    assert record["headers"] == [{"name": "h", "value": {"base64": "/w=="}}]


def test_a_record_sent_by_hand_is_as_complete_as_those_of_the_services(
    shop_place: ShopPlace,
) -> None:
    event = f'{{"amount": {AMOUNT}, "email": "ana@example.com", "orderId": "o-2"}}'
    options = ("--correlation-id", "Me(1)", "--header", "why=a=b", "--json")
    sent = json.loads(shop_place.run("topics", "send", NEW_ORDER.name, event, *options).stdout)

    (record,) = shop_place.tail(NEW_ORDER.name, "--correlation-id", "Me(1)")
    assert record["key"] == "ana@example.com"
    assert record["type"] == "br.com.alura.ecommerce.Order"
    assert sent == {
        "topic": NEW_ORDER.name,
        "partition": record["partition"],
        "offset": record["offset"],
        "eventId": record["eventId"],
        "correlationId": record["correlationId"],
    }
    assert sent["correlationId"].startswith("Me(1)-_ECOMMERCE_NEW_ORDER(")
    assert {"name": "why", "value": "a=b"} in record["headers"]
    line = shop_place.run("topics", "tail", NEW_ORDER.name, "--correlation-id", "Me(1)").stdout
    assert AMOUNT in line


def test_text_and_plain_json_are_sent_in_their_topics_form(shop_place: ShopPlace) -> None:
    text = 'He said "yes" & left'
    assert shop_place.run("topics", "send", SEND_EMAIL.name, text, "--key", "a@b.c").code == 0
    payment = '{"identifier": "p-1", "valor": 0.10}'
    assert shop_place.run("topics", "send", PIX.name, payment).code == 0

    (email,) = shop_place.tail(SEND_EMAIL.name, "--key", "a@b.c")
    assert (email["type"], email["payload"]) == ("java.lang.String", text)
    (pix,) = shop_place.tail(PIX.name, "--key", "p-1")
    assert pix["payload"]["valor"] == 0.1
    assert {"name": "__TypeId__", "value": "com.alura.pix.dto.PixDTO"} in pix["headers"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((NEW_ORDER.name, '{"amount": "much", "email": "a@b.c"}'), "$.amount"),
        ((NEW_ORDER.name, '{"amount": 1}'), "`email`"),
        ((NEW_ORDER.name, "hello"), "JSON"),
        ((SEND_EMAIL.name, "text without a recipient"), "--key"),
        ((PIX.name, '{"valor": 1}'), "--key"),
        ((PIX.name, '{"valor": "NaN"}'), "valor"),
        (("ECOMMERCE_UNKNOWN", "{}"), "ECOMMERCE_NEW_ORDER"),
        (("nobody-has-it", "{}"), "does not exist"),
    ],
)
def test_what_a_topic_does_not_take_is_refused_with_the_reason(
    shop_place: ShopPlace, arguments: tuple[str, ...], reason: str
) -> None:
    before = shop_place.kafka.metadata().topics.keys()
    said = shop_place.run("topics", "send", *arguments)

    assert reason in one_line(said, said.code)
    assert said.code in (1, 2)
    assert said.stdout == ""
    assert shop_place.kafka.metadata().topics.keys() == before


def test_lines_from_stdin_are_sent_up_to_the_first_that_is_refused(shop_place: ShopPlace) -> None:
    lines = '{"amount": 1, "email": "l1@b.c"}\n\n{"amount": 2, "email": "l2@b.c"}\nno\n{}\n'
    said = shop_place.run("topics", "send", ORDER_APPROVED.name, "-", "--json", stdin=lines)

    assert "line 3, after 2 sent" in one_line(said)
    sent = [json.loads(line) for line in said.stdout.splitlines()]
    assert len({record["eventId"] for record in sent}) == 2
    keys = [record["key"] for record in shop_place.tail(ORDER_APPROVED.name, "-n", "2")]
    assert keys == ["l1@b.c", "l2@b.c"]


def test_another_topic_gets_the_text_as_it_stands(
    kafka: Connection, make_topic: MakeTopic, tail: Tail, tmp_path: Path
) -> None:
    topic = make_topic(TEXT)
    assert run(kafka, tmp_path, "topics", "send", topic.name, "any {text").code == 0

    (record,) = tail(topic)
    assert (record["key"], record["value"], record["headers"]) == (None, "any {text", [])
