"""What it costs that a template has one request to a broker on its way at a time, against five:
records per second while they are queued as fast as the producer takes them, and the milliseconds
that one takes by itself.

Once with the broker on this machine, and once behind a proxy that delays each way by a millisecond,
as a network between zones does. The two take turns; the median of the rounds' ratios counts.
"""

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from tests.proxies import Proxy

from bench.harness import Stopwatch, kafka, show
from shop.kafka import template
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.errors import SendFailed
from shop.kafka.outbound import OutboundRecord
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from shop.topics import NEW_ORDER

RECORDS = 20_000
ALONE = 100
ROUNDS = 8
DELAY_S = 0.001
PARTITIONS = (1, 3, 12)
VALUE = os.urandom(300)  # as large as an order on its topic


def records(topic: str, count: int) -> Iterator[OutboundRecord]:
    for number in range(count):
        yield OutboundRecord(topic, str(number % 1000), VALUE, [])


def per_second(sender: KafkaTemplate, topic: str) -> float:
    done = threading.Event()
    left, failures = RECORDS, []

    def delivered(error: Any, _message: Any) -> None:
        nonlocal left
        if error is not None:
            failures.append(error)
        left -= 1
        if not left:
            done.set()

    watch = Stopwatch()
    for record in records(topic, RECORDS):
        while True:
            try:
                sender.publish(record, delivered)
                break
            except SendFailed as error:
                if error.cause is not None:
                    raise
                time.sleep(0.001)  # its queue is full
    done.wait()
    if failures:
        raise SystemExit(f"{len(failures)} records were not sent: {failures[0]}")
    return RECORDS / watch.wall


def alone_ms(sender: KafkaTemplate, topic: str) -> float:
    watch = Stopwatch()
    for record in records(topic, ALONE):
        sender.send_record(record)
    return watch.wall * 1000 / ALONE


@contextmanager
def senders(connection: Connection, topic: str) -> Iterator[dict[int, KafkaTemplate]]:
    with ExitStack() as stack:
        made = {}
        for in_flight in (5, template.IN_FLIGHT):
            with patch.object(template, "IN_FLIGHT", in_flight):
                made[in_flight] = stack.enter_context(KafkaTemplate(connection))
            made[in_flight].send_record(next(records(topic, 1)))  # it has its producer id then
        yield made


def compare(connection: Connection, topic: str) -> dict[str, dict[int, list[float]]]:
    measures: dict[str, Callable[[KafkaTemplate, str], float]] = {
        "rate": per_second,
        "alone": alone_ms,
    }
    found: dict[str, dict[int, list[float]]] = {name: {} for name in measures}
    with senders(connection, topic) as made:
        for _ in range(ROUNDS):
            made = dict(reversed(made.items()))
            for name, measure in measures.items():
                for in_flight, sender in made.items():
                    found[name].setdefault(in_flight, []).append(measure(sender, topic))
    return found


def main() -> None:
    with kafka() as direct, closing(Proxy(direct.bootstrap_servers, DELAY_S)) as proxy:
        topics = {}
        for partitions in PARTITIONS:
            topic = Topic(f"bench-{uuid4().hex[:8]}", NEW_ORDER.codec, partitions=partitions)
            create_topics(direct, [topic])
            topics[partitions] = topic.name
        rows, ratios = [], {}
        for where, connection in (
            ("here", direct),
            ("1 ms away", Connection(proxy.bootstrap_servers)),
        ):
            for partitions, name in topics.items():
                found = compare(connection, name)
                (five, one), (slow_five, slow_one) = (
                    (by[5], by[template.IN_FLIGHT]) for by in found.values()
                )
                ratio = statistics.median(a / b for a, b in zip(one, five, strict=True))
                ratios[f"ratio_{where.replace(' ', '_')}_{partitions}"] = round(ratio, 3)
                middle = statistics.median
                rows.append(
                    (
                        f"{where}, {partitions} partitions",
                        f"{middle(one):,.0f} records/s against {middle(five):,.0f}: "
                        f"{ratio:.2f}; one alone {middle(slow_one):.2f} ms against "
                        f"{middle(slow_five):.2f}",
                    )
                )
    show("One request on its way at a time, against five", rows, **ratios)


if __name__ == "__main__":
    main()
