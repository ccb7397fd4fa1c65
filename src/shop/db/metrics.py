"""What the databases of a process are measured by, through OpenTelemetry's API."""

import time
from typing import Self

from opentelemetry.metrics import Meter

_WAITS_S = (
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
)  # fmt: skip


class DatabaseMetrics:
    """Shared by all databases. Thread-safe."""

    def __init__(self, meter: Meter) -> None:
        self._wait = meter.create_histogram(
            "shop.database.wait", "s", "Until a write transaction had begun, or was given up",
            explicit_bucket_boundaries_advisory=_WAITS_S,
        )  # fmt: skip
        self._published = meter.create_counter(
            "shop.outbox.published", "{record}", "Records of an outbox that the brokers took"
        )

    def waited(self, database: str, seconds: float) -> None:
        self._wait.record(seconds, {"database": database})

    def published(self, database: str, records: int) -> None:
        self._published.add(records, {"database": database})


class Wait:
    """A block in which somebody waits for a database, until `over` or until it gives up."""

    __slots__ = ("_asked", "_database", "_metrics")

    def __init__(self, metrics: DatabaseMetrics | None, database: str) -> None:
        self._metrics = metrics
        self._database = database

    def __enter__(self) -> Self:
        self._asked = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.over()

    def over(self) -> None:
        if self._metrics is not None:
            self._metrics.waited(self._database, time.perf_counter() - self._asked)
            self._metrics = None  # told once
