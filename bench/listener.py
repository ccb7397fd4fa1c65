"""A listener that decodes and acknowledges, against a bare loop on confluent-kafka.

The bare loop is the limit: consume(500), json.loads, one commit per batch. The listener does it
once with Kafka's offsets only and once with receipts and positions in SQLite. The three take turns
on the same topic, and the median of the rounds counts.
"""

import json
import statistics
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from confluent_kafka import Consumer

from bench.harness import Stopwatch, fill, kafka, new_topic, show
from shop.db.database import Database
from shop.db.schema import upgrade
from shop.db.store import DatabaseStore
from shop.events import Order
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.listener import ListenerRegistry, listener
from shop.kafka.topic import Topic

RECORDS = 200_000
ROUNDS = 3


def bare(connection: Connection, topic: Topic[Order]) -> tuple[float, float]:
    consumer = Consumer(
        {
            "bootstrap.servers": connection.bootstrap_servers,
            "group.id": f"bare-{uuid4()}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic.name])
    seen, watch = 0, None
    while seen < RECORDS:
        batch = consumer.consume(500, 1.0)
        watch = watch or (Stopwatch() if batch else None)
        for record in batch:
            json.loads(record.value())
        if batch:
            seen += len(batch)
            consumer.commit(asynchronous=True)
    assert watch is not None
    result = watch.wall, watch.cpu
    consumer.close()
    return result


def ours(
    connection: Connection, topic: Topic[Order], store: DatabaseStore | None
) -> tuple[float, float]:
    group = f"ours-{uuid4()}"
    done = threading.Event()
    started: list[Stopwatch] = []
    seen = 0

    @listener(topic, group=group)
    def count(_order: Order, ack: Acknowledgment) -> None:
        nonlocal seen
        if not seen:
            started.append(Stopwatch())
        seen += 1
        ack.acknowledge()
        if seen == RECORDS:
            done.set()

    registry = ListenerRegistry()
    registry.add(count)
    endpoints = registry.endpoints(group, store.work_type if store else None)
    container = ListenerContainer(connection, group, endpoints, store=store)
    container.start()
    done.wait()
    result = started[0].wall, started[0].cpu
    container.stop()
    return result


def main() -> None:
    with kafka() as connection, tempfile.TemporaryDirectory() as folder:
        topic = new_topic(connection, "bench-listener")
        fill(connection, topic, RECORDS)
        database = Database(f"sqlite:///{Path(folder) / 'fraud.db'}")
        upgrade(database, "shop.fraud")
        store = DatabaseStore(database)
        ways: dict[str, Callable[[], tuple[float, float]]] = {
            "bare confluent-kafka loop": lambda: bare(connection, topic),
            "listener, Kafka offsets": lambda: ours(connection, topic, None),
            "listener, receipts and positions in SQLite": lambda: ours(connection, topic, store),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, run in ways.items():
                times[name].append(run())
        wall = {name: statistics.median(t for t, _ in runs) for name, runs in times.items()}
        cpu = {name: statistics.median(c for _, c in runs) for name, runs in times.items()}
        limit, plain, stored = wall.values()
        show(
            "listener",
            [
                (
                    name,
                    f"{RECORDS / wall[name]:>9,.0f} msg/s  {cpu[name] / RECORDS * 1e6:5.1f} us CPU"
                    f"  ratio {limit / wall[name]:.2f}",
                )
                for name in ways
            ],
            records=RECORDS,
            ratio_plain=round(limit / plain, 3),
            ratio_stored=round(limit / stored, 3),
            required={"ratio_plain": 0.5, "ratio_stored": 0.25},
        )
        database.close()


if __name__ == "__main__":
    main()
