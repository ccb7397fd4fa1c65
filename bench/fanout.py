"""A record for each of 1,000,000 users: records per second, and memory against 10,000 users.

Ours is the real process, `shop listen --group batch`, from its first record to its last. Against
it, in the same run, the limit: a bare producer that sends as many records of the same bytes. They
take turns, and the medians count. BENCH_USERS=10000,100000 chooses other sizes.
"""

import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from sqlalchemy import insert

from bench.harness import Stopwatch, kafka, listening, rate, show
from shop.databases import Databases
from shop.db.database import Database
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.correlation import begin, sent_to, through
from shop.kafka.ids import random_id, time_ordered_id
from shop.kafka.topic import Topic
from shop.settings import Settings
from shop.topics import ALL, SEND_MESSAGE_TO_ALL_USERS, USER_GENERATE_READING_REPORT
from shop.users.model import FanOutRow, State, UserRow

SIZES = (10_000, 1_000_000)
SAMPLE = 10_000  # records of ours that the bare producer sends again and again
ROUNDS = 3

TARGET = USER_GENERATE_READING_REPORT
BARE = Topic("bench-fanout", TARGET.codec)


def register(database: Database, count: int) -> None:
    for start in range(0, count, 10_000):
        rows = [
            {"uuid": random_id(), "email": f"customer{n}@example.com", "created_at": n}
            for n in range(start, min(start + 10_000, count))
        ]
        with database.write(durable=False) as connection:
            connection.execute(insert(UserRow), rows)


def ask(database: Database) -> None:
    """As the listener notes what was asked for."""
    asked = sent_to(begin("ReportController"), SEND_MESSAGE_TO_ALL_USERS.name)
    row = {
        "id": time_ordered_id(),
        "target": TARGET.name,
        "correlation_id": through(asked, "Batch"),
        "asked_at": time.time_ns() // 1_000_000,
        "state": State.RUNNING,
        "sent": 0,
        "cursor": "",
    }
    with database.write() as connection:
        connection.execute(insert(FanOutRow), row)


def published(reader: Consumer) -> int:
    return sum(
        reader.get_watermark_offsets(TopicPartition(TARGET.name, number))[1]
        for number in range(TARGET.partitions)
    )


def ours(connection: Connection, folder: Path, users: int) -> tuple[float, float]:
    """Records per second, and the process's largest resident memory in MB."""
    reader = connection.reader()
    before = published(reader)
    with listening(connection, "batch", folder) as process:
        measured = rate(process, lambda: published(reader) - before, users)
        memory = peak_memory(process.pid)
    reader.close()
    return measured, memory


def peak_memory(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def sample(connection: Connection) -> list[tuple[bytes, bytes, Any]]:
    """Value, key and headers of some of our records."""
    consumer = Consumer({"bootstrap.servers": connection.bootstrap_servers, "group.id": "sample"})
    consumer.assign([TopicPartition(TARGET.name, 0, OFFSET_BEGINNING)])
    count = min(SAMPLE, consumer.get_watermark_offsets(TopicPartition(TARGET.name, 0))[1])
    records: list[Any] = []
    while len(records) < count:
        records += consumer.consume(count - len(records), 1.0)
    consumer.close()
    return [(record.value(), record.key(), record.headers()) for record in records]


def bare(connection: Connection, records: Iterator[tuple[bytes, bytes, Any]], count: int) -> float:
    """Records per second."""
    producer = Producer(
        {
            "bootstrap.servers": connection.bootstrap_servers,
            "enable.idempotence": True,
            "compression.type": "lz4",
        }
    )
    producer.list_topics(BARE.name)  # connected, as ours is when it begins
    watch = Stopwatch()
    for value, key, headers in islice(records, count):
        while True:
            try:
                producer.produce(BARE.name, value, key, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    return count / watch.wall


def main() -> None:
    chosen = os.environ.get("BENCH_USERS")
    small, large = map(int, chosen.split(",")) if chosen else SIZES
    memory: dict[int, list[float]] = {small: [], large: []}
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    with kafka() as connection, tempfile.TemporaryDirectory(prefix="shop-bench-") as folder:
        create_topics(connection, [*ALL, BARE])
        for users, peaks in memory.items():
            home = Path(folder) / str(users)
            databases = Databases(Settings(data_dir=home))
            register(databases.of("users"), users)
            for _ in range(ROUNDS):
                ask(databases.of("users"))
                records_per_s, peak = ours(connection, home, users)
                peaks.append(peak)
                if users == large:  # a few chunks are too short to time
                    rates["ours"].append(records_per_s)
                    rates["bare"].append(bare(connection, cycle(sample(connection)), users))
            databases.close()
    mine, limit = statistics.median(rates["ours"]), statistics.median(rates["bare"])
    few, many = statistics.median(memory[small]), statistics.median(memory[large])
    show(
        "fanout",
        [
            ("bare producer", f"{limit:>9,.0f} records/s"),
            ("shop listen --group batch", f"{mine:>9,.0f} records/s  ratio {mine / limit:.2f}"),
            (f"its memory at {small:,} users", f"{few:>9.0f} MB at most"),
            (f"at {large:,} users", f"{many:>9.0f} MB at most  ratio {many / few:.2f}"),
        ],
        users=large,
        records_per_s=round(mine),
        ratio=round(mine / limit, 3),
        memory_mb={str(small): round(few), str(large): round(many)},
        ratio_memory=round(many / few, 3),
        rounds=[round(rate) for rate in rates["ours"]],
        required={"records_per_s": 30_000},
        at_most={"ratio_memory": 1.2},
    )


if __name__ == "__main__":
    main()
