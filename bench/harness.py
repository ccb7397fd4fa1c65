"""What the measurements share: a broker of their own, records to read, how results are shown."""

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import Producer

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


def fill(connection: Connection, topic: Topic[Order], count: int) -> None:
    """`count` orders of 1,000 customers, as they stand on the topic after our API."""
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
        while True:
            try:
                producer.produce(topic.name, value, order.email, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def show(name: str, rows: Sequence[tuple[str, str]], **result: Any) -> None:
    """A readable block, and the same as one JSON line."""
    print(f"\n{name}")
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"  {label:<{width}}  {value}")
    print(json.dumps({"bench": name, **result}), flush=True)


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
