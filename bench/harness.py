"""What the measurements share: a broker of their own, records to read, how results are shown."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from shop.broker import EmbeddedKafka, free_port
from shop.events import Order
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.ids import time_ordered_id
from shop.kafka.topic import Topic
from shop.topics import NEW_ORDER


@contextmanager
def kafka() -> Iterator[Connection]:
    """A real broker in its own process, as `shop up` runs it; or the one of BENCH_KAFKA."""
    given = os.environ.get("BENCH_KAFKA")
    if given:
        yield Connection(given)
        return
    with tempfile.TemporaryDirectory(prefix="shop-bench-") as folder:
        broker = EmbeddedKafka(Path(folder) / "kafka", port=free_port())
        broker.start()
        try:
            yield Connection(broker.bootstrap_servers)
        finally:
            broker.stop()


def new_topic(connection: Connection, prefix: str) -> Topic[Order]:
    topic = Topic(f"{prefix}-{uuid4().hex[:8]}", NEW_ORDER.codec, key=NEW_ORDER.key)
    create_topics(connection, [topic])
    return topic


def fill(
    connection: Connection, topic: Topic[Order], count: int, traced: float | None = None
) -> None:
    """`count` orders of 1,000 customers, as they stand on the topic after our API; that share of
    them sampled where it traces."""
    draw = random.Random(1)
    producer = Producer(
        {"bootstrap.servers": connection.bootstrap_servers, "linger.ms": 50, "acks": "all"}
    )
    for number in range(count):
        order = Order(
            order_id=time_ordered_id(),
            amount=Decimal(number % 500_000) / 100 + 1,
            email=f"customer{number % 1000}@example.com",
        )
        value = topic.codec.encode(order, f"OrderController({uuid4()})-_{topic}({uuid4()})")
        headers = [("event-id", time_ordered_id().encode())]
        if traced is not None:
            ids = f"{uuid4().hex}-{uuid4().hex[:16]}"
            headers.append(("traceparent", f"00-{ids}-0{int(draw.random() < traced)}".encode()))
        while True:
            try:
                producer.produce(topic.name, value, order.email, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


@contextmanager
def listening(
    connection: Connection, group: str, folder: Path, level: str = "WARNING", **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The real process, `shop listen --group GROUP`, its log a file, `variables` in its
    environment. After the block it is stopped and Kafka forgets the group."""
    with (folder / "process.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "shop.cli", "listen", "--group", group],
            env=os.environ
            | {
                "SHOP_DATA_DIR": str(folder),
                "SHOP_KAFKA__BOOTSTRAP_SERVERS": connection.bootstrap_servers,
                "SHOP_LOG__LEVEL": level,
            }
            | variables,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    _forget(connection, group)


def rate(process: subprocess.Popen[bytes], done: Callable[[], int], count: int) -> float:
    """How many per second, from the first that is done to the last of `count`."""
    watch, first, so_far = None, 0, 0
    while so_far < count:
        if process.poll() is not None:
            raise SystemExit("shop listen died")
        time.sleep(0.005)  # between two looks
        so_far = done()
        if watch is None and so_far:
            watch, first = Stopwatch(), so_far
    assert watch is not None
    return (so_far - first) / watch.wall


def one_by_one(connection: Connection, topic: Topic[Any], count: int) -> Iterator[Any]:
    """Records as a naive listener takes them: each polled alone, and committed synchronously when
    it is done with."""
    consumer = Consumer(
        {
            "bootstrap.servers": connection.bootstrap_servers,
            "group.id": f"naive-{uuid4()}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic.name])
    for _ in range(count):
        record = None
        while record is None:
            record = consumer.poll(1.0)
        yield record
        consumer.commit(record, asynchronous=False)
    consumer.close()


def _forget(connection: Connection, group: str) -> None:
    """Delete the group, as soon as the broker has seen its members leave."""
    admin = connection.admin()
    while True:
        try:
            admin.delete_consumer_groups([group])[group].result()
            return
        except KafkaException as error:
            if error.args[0].code() != KafkaError.NON_EMPTY_GROUP:
                raise
            time.sleep(0.1)


missed: list[str] = []  # what was required and not reached in this run


def show(
    name: str,
    rows: Sequence[tuple[str, str]],
    *,
    required: Mapping[str, float] = MappingProxyType({}),
    at_most: Mapping[str, float] = MappingProxyType({}),
    **result: Any,
) -> None:
    """A readable block, and the same as one JSON line. `required`: the least that a result has to
    be, by its name; `at_most`: the most."""
    print(f"\n{name}")
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"  {label:<{width}}  {value}")
    limits = {"required": dict(required), "at_most": dict(at_most)}
    told = {"bench": name, **result, **{kind: of for kind, of in limits.items() if of}}
    print(json.dumps(told), flush=True)
    for key, limit in required.items():
        if result[key] < limit:
            missed.append(f"{name}: {key} is {result[key]}, {limit} is required")
    for key, limit in at_most.items():
        if result[key] > limit:
            missed.append(f"{name}: {key} is {result[key]}, at most {limit} is allowed")


class Stopwatch:
    """Wall and CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._wall

    @property
    def cpu(self) -> float:
        return time.process_time() - self._cpu
