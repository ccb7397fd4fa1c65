"""The fraud group from the topic to its published decisions, against a naive listener.

Ours is the real process, `shop listen --group fraud`. The naive one is what one writes first: a
transaction per record, a synchronous send, a synchronous commit. Both decide on the same orders and
keep the same rows in SQLite with synchronous=FULL; they take turns, and the medians count.
"""

import statistics
import tempfile
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

from confluent_kafka import Consumer, Producer, TopicPartition
from sqlalchemy.orm import Session

from bench.harness import Stopwatch, fill, kafka, listening, new_topic, one_by_one, rate, show
from shop.db.database import Database
from shop.db.schema import upgrade
from shop.fraud.model import Decision
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.topics import ALL, NEW_ORDER, ORDER_APPROVED, ORDER_REJECTED

ORDERS = 100_000
NAIVE_ORDERS = 1_000
ROUNDS = 3


def decisions(connection: Connection, reader: Consumer) -> int:
    """How many decisions are published."""
    return sum(
        reader.get_watermark_offsets(TopicPartition(topic.name, number))[1]
        for topic in (ORDER_APPROVED, ORDER_REJECTED)
        for number in range(topic.partitions)
    )


def ours(connection: Connection, folder: Path) -> float:
    """Orders per second, from the first published decision to the last."""
    reader = connection.reader()
    before = decisions(connection, reader)
    with listening(connection, "fraud", folder) as process:
        measured = rate(process, lambda: decisions(connection, reader) - before, ORDERS)
    reader.close()
    return measured


def naive(connection: Connection, folder: Path) -> float:
    target = new_topic(connection, "bench-naive")
    database = Database(f"sqlite:///{folder / 'naive.db'}")
    upgrade(database, "shop.fraud")
    producer = Producer(
        {"bootstrap.servers": connection.bootstrap_servers, "enable.idempotence": True}
    )
    watch = None
    for record in one_by_one(connection, NEW_ORDER, NAIVE_ORDERS):
        watch = watch or Stopwatch()
        order, correlation_id = NEW_ORDER.codec.decode(record.value())
        fraud = order.amount >= Decimal(4500)
        with Session(database.engine) as session, session.begin():
            session.add(Decision(order_id=order.order_id, amount=order.amount, is_fraud=fraud))
        value = target.codec.encode(order, f"{correlation_id}-Naive({uuid4()})")
        producer.produce(target.name, value, order.email)
        producer.flush()
    assert watch is not None
    measured = NAIVE_ORDERS / watch.wall
    database.close()
    return measured


def main() -> None:
    rates: dict[str, list[float]] = {"ours": [], "naive": []}
    with kafka() as connection:
        create_topics(connection, ALL)
        fill(connection, NEW_ORDER, ORDERS)
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as folder:
                rates["naive"].append(naive(connection, Path(folder)))
                rates["ours"].append(ours(connection, Path(folder)))
    mine, other = statistics.median(rates["ours"]), statistics.median(rates["naive"])
    show(
        "fraud",
        [
            ("naive: transaction per record, synchronous send", f"{other:>9,.0f} orders/s"),
            ("shop listen --group fraud", f"{mine:>9,.0f} orders/s  ratio {mine / other:.1f}"),
        ],
        orders=ORDERS,
        orders_per_s=round(mine),
        ratio=round(mine / other, 1),
        rounds=[round(rate) for rate in rates["ours"]],
        required={"ratio": 20, "orders_per_s": 13_000},
    )


if __name__ == "__main__":
    main()
