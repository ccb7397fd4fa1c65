"""`shop stream` as a user has it: what it derives is exact, however often it is killed."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from shop.broker import EmbeddedKafka, free_port
from shop.child import READY_FD, Child
from shop.cli.stack import Stack
from shop.events import Order, Pix
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.ids import derived_id
from shop.kafka.outbound import OutboundRecord, outbound
from shop.kafka.plain import PlainCodec
from shop.kafka.topic import Topic
from shop.kafka.wire import CORRELATION_ID, EVENT_ID, TRACEPARENT, Headers
from shop.settings import Kafka, Settings
from shop.streams.application import GROUP
from shop.streams.internal import InternalTopics
from shop.streams.quix import TopicManager
from shop.streams.records import LARGEST, LONGEST, received
from shop.topics import (
    ALL,
    ORDER_APPROVED,
    ORDER_REJECTED,
    ORDERS_PER_MINUTE,
    PIX,
    PIX_SUM_BY_KEY,
    PIX_VERIFICATION,
)
from tests.scraping import scraped
from tests.waiting import eventually

PATIENCE_S = 60.0
LIMIT = Decimal("700.5")
DECISIONS = {"approved": ORDER_APPROVED, "rejected": ORDER_REJECTED}


class Place:
    """A broker, and `shop stream` on a data folder beside it."""

    def __init__(self, data: Path) -> None:
        self.broker = EmbeddedKafka(data / "kafka", port=free_port(), fast=True)
        self.broker.start()
        self.kafka = Connection(self.broker.bootstrap_servers)
        self.log = data / "stream.log"
        health = free_port()
        self.metrics = f"http://127.0.0.1:{health}/metrics"
        self._environment = os.environ | {
            "SHOP_DATA_DIR": str(data),
            "SHOP_KAFKA__BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
            "SHOP_STREAM__PIX_LIMIT": str(LIMIT),
            "SHOP_HEALTH__PORT": str(health),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> subprocess.CompletedProcess[str]:
        """`shop stream` that is expected to end by itself."""
        command = [sys.executable, "-P", "-m", "shop.cli", "stream"]
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=PATIENCE_S
        )

    def running(self) -> subprocess.Popen[bytes]:
        """`shop stream` that has its partitions when this returns: the one that runs, or else a
        new one."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        ready, says_ready = os.pipe()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "shop.cli", "stream"],
                env=self._environment | {READY_FD: str(says_ready)},
                pass_fds=[says_ready],
                stdout=log,
                stderr=log,
            )
        os.close(says_ready)
        with os.fdopen(ready, "rb") as pipe:
            assert pipe.readline() == b"ready\n", self.log.read_text()
        return self._process

    def left_out(self) -> set[str]:
        """Where the records lie that it said it left out."""
        said = [json.loads(line)["event"] for line in self.log.read_text().splitlines()]
        return {event.split(" is left out")[0] for event in said if "left out" in event}

    def lose_state(self) -> None:
        """What is kept on disk of the streams, but for who they are."""
        (state,) = (self.log.parent / "streams").glob("*/streams")
        shutil.rmtree(state)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.broker.stop()


class Reader:
    """All that others see of a topic so far: the records of committed transactions."""

    def __init__(self, kafka: Connection, topic: Topic[Any]) -> None:
        self.records: list[Any] = []
        self._events: list[Any] = []
        self._codec = topic.codec
        self._consumer = Consumer(
            {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "reader",
             "isolation.level": "read_committed", "enable.auto.commit": False,
             "enable.partition.eof": True, "log_level": 0}
        )  # fmt: skip
        self._partitions = topic.partitions
        self._consumer.assign([TopicPartition(topic.name, n, 0) for n in range(topic.partitions)])

    def events(self) -> list[Any]:
        """Every event, in the order of its partition."""
        ends = 0
        while record := self._consumer.poll(0.1 if ends < self._partitions else 0):
            if record.error() is None:
                self.records.append(record)
                self._events.append(self._codec.decode(record.value())[0])
            else:
                assert record.error().code() == KafkaError._PARTITION_EOF, record.error()
                ends += 1
        return self._events

    def latest(self, key: bytes) -> Any:
        """The latest record of a key; None when there is none."""
        self.events()
        return next((record for record in reversed(self.records) if record.key() == key), None)


class Traffic:
    """Payments and decided orders, some of them sent twice, and what must come of them."""

    def __init__(self, kafka: Connection, moments: random.Random) -> None:
        self.sums: dict[str, list[Any]] = defaultdict(lambda: [Fraction(0), 0])
        self.minutes: dict[tuple[str, datetime], list[Any]] = defaultdict(lambda: [0, Fraction(0)])
        self.large: dict[str, Pix] = {}
        self.left_out: set[str] = set()  # where they lie
        self._random = moments
        self._again: list[tuple[OutboundRecord, int]] = []
        self._now = datetime.now(UTC).replace(second=0, microsecond=0)
        self._producer = Producer(
            {"bootstrap.servers": kafka.bootstrap_servers, "partitioner": "murmur2_random"}
        )

    def send(self, count: int) -> None:
        """`count` payments and as many orders; what the call before sent is in part repeated, as
        by a relay that did not note that it had sent it."""
        again, self._again = self._again, []
        for record, timestamp in again:
            self._produce(record, timestamp)
        for _ in range(count):
            self._pay()
            self._decide()
        if not self.left_out:
            self._exceed()
            self._reach_the_limits()
        for topic in (PIX, *DECISIONS.values()):
            for value in (b"\xff", b'{"valor": "much"}', None):
                self._producer.produce(topic.name, value, on_delivery=self._is_left_out)
        assert self._producer.flush(PATIENCE_S) == 0

    def _exceed(self) -> None:
        """Once beyond each limit; what is in no sum for that is verified all the same."""
        endless = Pix(identifier="endless", source_key="key-1", amount=Decimal("1E+1000"))
        sender = Pix(identifier="sender", source_key="s" * 600_000, amount=Decimal(1000))
        self.large |= {"endless": endless, "sender": sender}
        nobody = Pix(identifier="i" * 600_000, amount=Decimal(1000))
        order = Order(order_id="o" * 600_000, amount=Decimal(1), email="ana@example.com")
        for topic, event, key in (
            (PIX, endless, "key"),
            (PIX, sender, "key"),
            (PIX, nobody, "key"),
            (PIX, Pix(identifier="key", amount=Decimal(1000)), "k" * 600_000),
            (PIX, Pix(identifier="value", target_key="v" * LARGEST, amount=Decimal(1000)), "key"),
            (ORDER_APPROVED, order, "key"),
        ):
            value = topic.codec.encode(event, "Test(1)")
            self._producer.produce(topic.name, value, key, on_delivery=self._is_left_out)

    def _reach_the_limits(self) -> None:
        """A payment that is as large in every place as one that goes on may be."""
        payment = Pix(
            identifier="\N{MATHEMATICAL BOLD DIGIT ONE}" * LONGEST,
            source_key="\1" * LONGEST,
            target_key="t" * (LARGEST - 10 * LONGEST - 200),
            amount=Decimal(1000),
        )
        value = PIX.codec.encode(payment, "")
        headers = [(name, b"h" * 10_000) for name in (EVENT_ID, CORRELATION_ID, TRACEPARENT)]
        assert payment.identifier is not None
        assert payment.source_key is not None
        assert LARGEST - 200 < len(value) <= LARGEST
        self._producer.produce(PIX.name, value, payment.identifier, headers=headers)
        self.sums[payment.source_key] = [Fraction(1000), 1]
        self.large[payment.identifier] = payment

    def _pay(self) -> None:
        identifier = str(UUID(int=self._random.getrandbits(128)))
        sender = self._random.choice([None, *(f"key-{n}" for n in range(12))])
        amount = Decimal(self._random.choice(["0.10", "1E+3", "700.5", f"0.{'3' * 60}", "999.99"]))
        payment = Pix(identifier=identifier, source_key=sender, target_key="bia", amount=amount)
        if sender is not None:
            total, payments = self.sums[sender]
            self.sums[sender] = [total + Fraction(amount), payments + 1]
        if amount > LIMIT:
            self.large[identifier] = payment
        self._send(PIX, payment, self._now)

    def _decide(self) -> None:
        decision = self._random.choice(list(DECISIONS))
        amount = Decimal(self._random.randrange(1, 10**6)).scaleb(-self._random.randrange(20))
        order = Order(
            order_id=str(UUID(int=self._random.getrandbits(128))),
            amount=amount,
            email=f"customer{self._random.randrange(50)}@example.com",
        )
        minute = self._now - timedelta(minutes=self._random.choice([0, 1, 2, 600]))
        orders, total = self.minutes[decision, minute]
        self.minutes[decision, minute] = [orders + 1, total + Fraction(amount)]
        self._send(DECISIONS[decision], order, minute + timedelta(seconds=self._random.random()))

    def _send(self, topic: Topic[Any], event: Any, time: datetime) -> None:
        record = outbound(topic, None, event, correlation_id="Test(1)")
        timestamp = round(time.timestamp() * 1000)
        self._produce(record, timestamp)
        if self._random.random() < 0.2:
            self._again.append((record, timestamp))

    def _produce(self, record: OutboundRecord, timestamp: int) -> None:
        self._producer.produce(
            record.topic, record.value, record.key, headers=record.headers, timestamp=timestamp
        )
        self._producer.poll(0)

    def _is_left_out(self, error: Any, record: Any) -> None:
        assert error is None
        self.left_out.add(f"{record.topic()}[{record.partition()}] at {record.offset()}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("streams"))
    yield place
    place.close()


@pytest.fixture(scope="module")
def topics(place: Place) -> None:
    """One of them as a broker makes it by itself, with a single partition."""
    single = replace(ORDER_REJECTED, partitions=1)
    create_topics(place.kafka, [single if topic is ORDER_REJECTED else topic for topic in ALL])


def test_missing_topics_are_one_line_that_names_them_and_the_command(place: Place) -> None:
    result = place.run()

    assert "pix-topic" in result.stderr
    assert "shop topics create" in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.returncode == 1


@pytest.mark.usefixtures("topics")
def test_what_is_derived_is_exact_however_often_the_process_is_killed(place: Place) -> None:
    seed = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(2**32))
    print(f"FAULT_SEED={seed} repeats this choice; data in {place.log.parent}")
    moments = random.Random(seed)
    traffic = Traffic(place.kafka, moments)
    verified, sums, minutes = (
        Reader(place.kafka, topic)
        for topic in (PIX_VERIFICATION, PIX_SUM_BY_KEY, ORDERS_PER_MINUTE)
    )
    size = 500
    for watched in (sums, minutes):
        seen = len(watched.events())
        traffic.send(size)
        process = place.running()
        target = seen + moments.randrange(1, size // 4)
        eventually(lambda at=target, by=watched: len(by.events()) >= at, "progress", PATIENCE_S)
        assert process.poll() is None
        process.kill()
        process.wait()
    traffic.send(size)
    place.lose_state()
    place.running()
    payments = sum(count for _, count in traffic.sums.values())
    orders = sum(count for count, _ in traffic.minutes.values())
    eventually(lambda: len(verified.events()) >= len(traffic.large), "all verified", PATIENCE_S)
    eventually(lambda: len(sums.events()) >= payments, "all sums", PATIENCE_S)
    eventually(lambda: len(minutes.events()) >= orders, "all minutes", PATIENCE_S)
    eventually(lambda: place.left_out() >= traffic.left_out, "all left out", PATIENCE_S)

    assert {payment.identifier: payment for payment in verified.events()} == traffic.large
    assert len(verified.events()) == len(traffic.large), "each one once"
    steps: dict[Any, list[int]] = defaultdict(list)
    for now in sums.events():
        steps[now.source_key].append(now.payments)
    latest = {now.source_key: [Fraction(now.total), now.payments] for now in sums.events()}
    assert latest == traffic.sums
    for now in minutes.events():
        steps[now.decision, now.begin].append(now.orders)
    grown = {(m.decision, m.begin): [m.orders, Fraction(m.amount)] for m in minutes.events()}
    assert grown == traffic.minutes
    assert all(counts == list(range(1, len(counts) + 1)) for counts in steps.values())
    assert place.left_out() == traffic.left_out


@pytest.mark.usefixtures("topics")
def test_its_metrics_say_how_far_it_is_behind(place: Place) -> None:
    def ages() -> dict[str, list[float]]:
        """Of what is left to be read, by topic."""
        found = defaultdict(list)
        for name, labels, value in scraped(place.metrics).samples:
            if name == "shop_listener_oldest_seconds" and labels["group"] == GROUP:
                found[labels["topic"]].append(value)
        return found

    process = place.running()
    Traffic(place.kafka, random.Random(2)).send(20)
    eventually(
        lambda: PIX.name in (now := ages()) and not any(now[PIX.name]), "the end", PATIENCE_S
    )

    assert set(ages()) == {PIX.name, ORDER_APPROVED.name, ORDER_REJECTED.name}
    assert process.poll() is None


@pytest.mark.usefixtures("topics")
def test_a_payment_to_verify_goes_on_as_it_came_with_its_way_in_the_headers(place: Place) -> None:
    place.running()
    value = (
        b'{"identifier":"39cc2e64","chaveOrigem":"ana","chaveDestino":null,'
        b'"valor":1000.1,"dataTransferencia":[2026,11,22,12,33,42,666228733]}'
    )
    producer = Producer({"bootstrap.servers": place.kafka.bootstrap_servers})
    came: Headers = [(EVENT_ID, b"the-event"), (CORRELATION_ID, b"PixController(1)")]
    producer.produce(PIX.name, value, "39cc2e64", headers=came)
    producer.flush()
    verified = Reader(place.kafka, PIX_VERIFICATION)

    record = eventually(lambda: verified.latest(b"39cc2e64"), "the payment to verify", PATIENCE_S)
    headers = dict(record.headers())
    assert PIX.codec.decode(record.value()) == PIX.codec.decode(value)
    assert headers["__TypeId__"] == b"com.alura.pix.dto.PixDTO"
    assert headers[EVENT_ID].decode() == derived_id("the-event", PIX_VERIFICATION)
    way = rb"PixController\(1\)-PixStream\([^)]+\)-_pix-verification\([^)]+\)"
    assert re.fullmatch(way, headers[CORRELATION_ID])


@pytest.mark.usefixtures("topics")
def test_every_update_of_a_minute_is_an_event_of_its_own(place: Place) -> None:
    place.running()
    Traffic(place.kafka, random.Random(1)).send(20)
    minutes = Reader(place.kafka, ORDERS_PER_MINUTE)
    eventually(lambda: len(minutes.events()) >= 20, "the updates", PATIENCE_S)

    ids = [dict(record.headers())[EVENT_ID] for record in minutes.records]
    assert len(set(ids)) == len(ids)
    assert {record.key() for record in minutes.records} == {b"approved", b"rejected"}


@pytest.mark.usefixtures("topics")
def test_a_second_process_on_the_same_data_is_refused_in_one_line(place: Place) -> None:
    first = place.running()
    result = place.run()

    (line,) = result.stderr.splitlines()
    assert json.loads(line)["event"].startswith("a stream already runs in ")
    assert result.returncode == 1
    assert first.poll() is None


@pytest.mark.usefixtures("topics")
def test_it_ends_well_when_asked_to(place: Place) -> None:
    process = place.running()
    process.send_signal(signal.SIGTERM)

    assert process.wait(PATIENCE_S) == 0


def test_a_topic_that_was_just_made_is_waited_for(place: Place) -> None:
    class Lagging(InternalTopics):
        """Asks a broker that hears of a topic late."""

        looks = 0

        def list_topics(self, timeout: float = -1) -> dict[str, Any]:
            self.looks += 1
            return {} if self.looks < 4 else super().list_topics(timeout)

    topics = TopicManager(Lagging(place.kafka), "group")
    config = topics.topic_config(num_partitions=2, replication_factor=1)

    made = topics.repartition_topic("operation", "stream", config)

    assert made.broker_config.num_partitions == 2


def test_whatever_a_codec_raises_leaves_the_record_out(caplog: pytest.LogCaptureFixture) -> None:
    from quixstreams.context import set_message_context  # not before shop.kafka.quix
    from quixstreams.models import MessageContext

    class Raising(PlainCodec[Pix]):
        def decode(self, value: bytes | None) -> tuple[Pix, str | None]:
            raise OverflowError("too far")

    set_message_context(MessageContext(topic="T", partition=2, offset=7, size=0))

    assert received(Topic("T", Raising(Pix, "T")), b"{}", None, 0, None) is None
    assert caplog.messages == ["T[2] at 7 is left out: OverflowError: too far"]


def test_shop_up_beside_brokers_of_others_has_it_wait_for_the_topics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands: dict[str, Any] = {}

    def child(name: str, command: Any, variables: Any, **more: Any) -> Child:
        commands[name] = command
        return Child(name, command, variables, **more)

    monkeypatch.setattr("shop.cli.stack.Child", child)
    Stack(Settings(kafka=Kafka(bootstrap_servers="kafka:9092")), None, lock=0, stream=True)

    assert commands["stream"][-3:-1] == ["stream", "--wait"]
