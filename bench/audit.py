"""The audit trail: `shop listen --group log`, with a log line per record and without, against a
bare loop on confluent-kafka that reads the same records.

The process is the real one, its log a file. Its time counts from its first record to its last, as
its database tells. The three take turns, and the median of the rounds counts.
"""

import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from confluent_kafka import KafkaException

from bench.harness import fill, kafka, show
from bench.listener import RECORDS, bare
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.topics import ALL, NEW_ORDER

ROUNDS = 3
PATIENCE_S = 300


def audit(connection: Connection, level: str) -> float:
    """Seconds in which a process keeps all records, from the first on."""
    admin = connection.admin()
    with suppress(KafkaException):  # there is no such group yet
        admin.delete_consumer_groups(["log"])["log"].result(30)
    with tempfile.TemporaryDirectory(prefix="shop-bench-") as folder:
        with (Path(folder) / "process.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "shop.cli", "listen", "--group", "log"],
                env=os.environ
                | {
                    "SHOP_DATA_DIR": folder,
                    "SHOP_KAFKA__BOOTSTRAP_SERVERS": connection.bootstrap_servers,
                    "SHOP_LOG__LEVEL": level,
                },
                stderr=log,
            )
        try:
            return _seconds(Path(folder) / "log.db")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _seconds(database: Path) -> float:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        time.sleep(0.1)
        try:
            times = _times(database) if database.exists() else []
        except sqlite3.OperationalError:  # no table yet
            continue
        if len(times) == 2:
            return (times[1] - times[0]) / 1000
    raise SystemExit(f"not all {RECORDS} records were kept within {PATIENCE_S} s")


def _times(database: Path) -> list[int]:
    """When the first and the last record were handled, as far as they are."""
    connection = sqlite3.connect(database, timeout=30)
    try:
        query = "SELECT stored_at FROM audit WHERE id IN (1, ?) ORDER BY id"
        return [stored_at for (stored_at,) in connection.execute(query, (RECORDS,))]
    finally:
        connection.close()


def main() -> None:
    with kafka() as connection:
        create_topics(connection, ALL)
        fill(connection, NEW_ORDER, RECORDS)
        ways: dict[str, Callable[[], float]] = {
            "bare confluent-kafka loop": lambda: bare(connection, NEW_ORDER)[0],
            "audit trail, a line per record": lambda: audit(connection, "INFO"),
            "audit trail, no lines": lambda: audit(connection, "WARNING"),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, run in ways.items():
                times[name].append(run())
        wall = {name: statistics.median(runs) for name, runs in times.items()}
        limit, lines, silent = wall.values()
        show(
            "audit",
            [
                (name, f"{RECORDS / wall[name]:>9,.0f} records/s  ratio {limit / wall[name]:.2f}")
                for name in ways
            ],
            records=RECORDS,
            ratio_lines=round(limit / lines, 3),
            ratio_silent=round(limit / silent, 3),
        )


if __name__ == "__main__":
    main()
