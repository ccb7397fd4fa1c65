"""What metrics cost a listener: the same listener with and without them, by turns in one run.

Once it only decodes and acknowledges, which is the least that a record can cost; once it sends an
event for each, as the fraud service does. CPU counts, of the whole process. Each round runs both
right after each other, so that what else runs on the machine slows both; the median of the rounds'
ratios counts.
"""

import statistics
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from bench.harness import Stopwatch, fill, kafka, new_topic, show
from shop.db.database import Database
from shop.db.schema import upgrade
from shop.db.store import DatabaseStore
from shop.db.work import Work
from shop.events import Order
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.listener import ListenerRegistry, listener
from shop.kafka.topic import Topic
from shop.metrics import Metrics
from shop.topics import ORDER_APPROVED

RECORDS = 30_000
ROUNDS = 11


def cpu_of(
    connection: Connection,
    topic: Topic[Order],
    store: DatabaseStore,
    effect: Callable[[Order, Work], None],
    metrics: Metrics | None,
    records: int = RECORDS,
    finish: Callable[[], object] = lambda: None,
) -> float:
    """Microseconds per record, from the first to the last, and of `finish` after that."""
    group = f"bench-{uuid4()}"
    done = threading.Event()
    started: list[Stopwatch] = []
    seen = 0

    @listener(topic, group=group)
    def handle(order: Order, work: Work, ack: Acknowledgment) -> None:
        nonlocal seen
        if not seen:
            started.append(Stopwatch())
        seen += 1
        effect(order, work)
        ack.acknowledge()
        if seen == records:
            done.set()

    registry = ListenerRegistry()
    registry.add(handle)
    container = ListenerContainer(
        connection,
        group,
        registry.endpoints(group, store.work_type),
        store=store,
        metrics=metrics.listeners if metrics else None,
    )
    container.start()
    done.wait()
    finish()
    cpu = started[0].cpu
    container.stop()
    return cpu / records * 1e6


def nothing(_order: Order, _work: Work) -> None:
    pass


def decision(order: Order, work: Work) -> None:
    work.send(ORDER_APPROVED, order.email, order)


EFFECTS = {"decodes and acknowledges": nothing, "sends an event": decision}


def main() -> None:
    with kafka() as connection, tempfile.TemporaryDirectory() as folder:
        topic = new_topic(connection, "bench-metrics")
        fill(connection, topic, RECORDS)
        database = Database(f"sqlite:///{Path(folder) / 'fraud.db'}")
        upgrade(database, "shop.fraud")
        store, metrics = DatabaseStore(database), Metrics("bench")
        cpu: dict[tuple[str, bool], list[float]] = {}
        for number in range(ROUNDS):
            for name, effect in EFFECTS.items():
                for measured in (True, False) if number % 2 else (False, True):
                    database.metrics = metrics.databases if measured else None
                    took = cpu_of(connection, topic, store, effect, metrics if measured else None)
                    cpu.setdefault((name, measured), []).append(took)
        database.close()
    off = {name: statistics.median(cpu[name, False]) for name in EFFECTS}
    on = {name: statistics.median(cpu[name, True]) for name in EFFECTS}
    ratios = {
        name: round(
            statistics.median(
                without / with_
                for without, with_ in zip(cpu[name, False], cpu[name, True], strict=True)
            ),
            3,
        )
        for name in EFFECTS
    }
    show(
        "metrics",
        [
            (
                f"listener that {name}",
                f"{off[name]:5.1f} us CPU without, {on[name]:5.1f} with  ratio {ratios[name]:.3f}",
            )
            for name in EFFECTS
        ],
        records=RECORDS,
        ratio_least=ratios["decodes and acknowledges"],
        ratio=ratios["sends an event"],
        required={"ratio": 0.95},
    )


if __name__ == "__main__":
    main()
