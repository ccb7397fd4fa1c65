"""Groups that do not get on are seen, although their threads live."""

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition

from shop.broker import free_port
from shop.databases import Databases
from shop.db.tables import position
from shop.health import listeners_trouble
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.listener import listener
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from shop.kafka.wire import EnvelopeCodec
from shop.settings import Settings
from shop.topics import NEW_ORDER
from shop.watch import HealthServer, Stalled, Watch
from tests.commands import ShopPlace, environment
from tests.waiting import eventually

TEXT = EnvelopeCodec[str]({"java.lang.String": str})


def ask(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_listener_that_never_returns_turns_liveness_red_and_then_ends_its_process(
    template: KafkaTemplate, make_topic: Callable[..., Topic[str]],
    listen: Callable[..., ListenerContainer], group: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("shop.watch.RED_S", 0.0)
    topic = make_topic(TEXT)
    release = threading.Event()
    seen: list[str] = []

    @listener(topic, group=group)
    def on(text: str) -> None:
        if text == "stuck":
            release.wait()
        seen.append(text)

    watch = Watch([listen(on)], stalled_after=2.0)
    port = free_port()
    server = HealthServer("127.0.0.1", port, watch)
    url = f"http://127.0.0.1:{port}/health"
    template.send(topic, "k", "fine")
    eventually(lambda: seen == ["fine"])
    assert ask(f"{url}/live") == (200, {"status": "ok", "checks": {group: "ok"}})
    watch.look()

    template.send(topic, "k", "stuck")
    eventually(lambda: ask(f"{url}/live")[0] == 503)
    assert "the batch in hand takes" in ask(f"{url}/live")[1]["checks"][group]

    def ends() -> bool:
        try:
            watch.look()
        except Stalled as error:
            return group in str(error)
        return False

    eventually(ends)
    release.set()
    eventually(lambda: ask(f"{url}/live")[0] == 200)
    assert listeners_trouble(f"{url}/ready") is None
    server.close()
    assert "do not answer" in (listeners_trouble(f"{url}/ready") or "")


def test_a_thread_that_dies_takes_its_process_down_with_the_reason_and_a_code_of_its_own(
    shop_place: ShopPlace, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    command = [sys.executable, "-P", "-m", "shop.cli", "listen", "--group", "fraud"]

    def ended() -> subprocess.CompletedProcess[str]:
        environment_ = environment(shop_place.kafka, data)
        return subprocess.run(
            command, env=environment_, text=True, capture_output=True, timeout=60, check=False
        )

    databases = Databases(Settings(data_dir=data))
    with databases.of("fraud").write() as connection:
        row = {"consumer_group": "fraud", "topic": NEW_ORDER.name, "partition": 0}
        connection.execute(position.insert().values(**row, next_offset=10_000_000))
    databases.close()
    process = ended()
    assert process.returncode == 3
    last = json.loads(process.stderr.splitlines()[-1])
    assert last["event"].startswith("group fraud would go on at 10000000")
    assert "nothing was skipped" in last["event"]
    assert last["level"] == "error"


def test_a_group_that_waits_for_its_next_attempt_is_not_stalled(
    template: KafkaTemplate, make_topic: Callable[..., Topic[str]],
    listen: Callable[..., ListenerContainer], group: str,
) -> None:  # fmt: skip
    topic = make_topic(TEXT)
    calls: list[str] = []

    @listener(topic, group=group)
    def on(text: str, ack: Acknowledgment) -> None:
        calls.append(text)
        ack.nack(1.5)

    container = listen(on)
    for _ in range(5):
        template.send(topic, "k", "later")
    looks = [container.stalled(1.0)]
    eventually(lambda: looks.append(container.stalled(1.0)) or len(calls) >= 3)
    assert set(looks) == {None}


def test_a_client_that_gives_no_records_is_a_stall_and_an_idle_one_is_none(
    kafka: Connection, template: KafkaTemplate, make_topic: Callable[..., Topic[str]],
    listen: Callable[..., ListenerContainer], group: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("shop.kafka.container.ASK_EVERY_S", 0.0)
    topic = make_topic(TEXT, partitions=2)
    seen: list[str] = []

    @listener(topic, group=group)
    def on(text: str) -> None:
        seen.append(text)

    container = listen(on)
    sent = template.send(topic, "k", "first")
    eventually(lambda: seen == ["first"])
    looks: list[str | None] = []
    began = time.monotonic()
    eventually(lambda: looks.append(container.stalled(1.0)) or time.monotonic() - began > 4)
    assert set(looks) == {None}, "there is nothing to read"

    client = container._consumers[0]._intake._client.consumer
    client.pause([TopicPartition(topic.name, sent.partition)])  # as if it had forgotten it
    template.send(topic, "k", "second")
    why = eventually(lambda: container.stalled(1.0))
    assert why == f"{topic.name}[{sent.partition}] stands at 1, and there are records"
    client.resume([TopicPartition(topic.name, sent.partition)])
    eventually(lambda: seen == ["first", "second"])
    eventually(lambda: container.stalled(1.0) is None)


def test_a_log_that_ends_in_a_transaction_s_marker_is_read_to_its_end(
    kafka: Connection, make_topic: Callable[..., Topic[str]],
    listen: Callable[..., ListenerContainer], group: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("shop.kafka.container.ASK_EVERY_S", 0.0)
    topic = make_topic(TEXT)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": group})
    producer.init_transactions()
    seen: list[str] = []

    @listener(topic, group=group)
    def on(text: str) -> None:
        seen.append(text)

    container = listen(on)
    for number in range(4):
        producer.begin_transaction()
        producer.produce(topic.name, TEXT.encode(str(number), "Test(1)"))
        producer.commit_transaction()
        eventually(lambda at=number: len(seen) == at + 1)
    looks: list[str | None] = []
    began = time.monotonic()
    eventually(lambda: looks.append(container.stalled(1.0)) or time.monotonic() - began > 6)
    assert set(looks) == {None}
