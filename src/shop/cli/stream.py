"""`shop stream`: the process that derives streams from the topics."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from shop.cli.context import BROKER_ANSWER_S
from shop.cli.errors import CommandFailed
from shop.cli.processes import Wait, await_topics, run_process

if TYPE_CHECKING:
    from shop.containers import Shop


def stream(context: typer.Context, wait: Wait = 0.0) -> None:
    """Derive streams from the topics: payments to verify, sums by sender, orders per minute.

    They go to the topics pix-verification, pix-sum-by-key and orders-per-minute. Started again
    after whatever end, it goes on as if it had not ended."""

    def work(shop: "Shop", stop: threading.Event) -> None:
        from shop.runtime import announce_ready, health_server
        from shop.streams.application import GROUP, stream_application
        from shop.streams.derive import SOURCES, derive

        connection, settings = shop.connection(), shop.settings()
        if not wait:
            connection.metadata(BROKER_ANSWER_S)
        await_topics(connection, wait, stop, create=False)
        if stop.is_set():
            return
        with _alone(settings.data_dir / "streams") as directory:
            application = stream_application(
                connection,
                directory,
                auto_offset_reset=settings.kafka.auto_offset_reset,
                session_timeout_ms=settings.kafka.session_timeout_ms,
                max_poll_interval_ms=settings.kafka.max_poll_interval_ms,
            )
            limit = settings.stream.pix_limit
            reading = threading.Event()

            def ready() -> None:
                reading.set()
                announce_ready()

            metrics = shop.metrics()
            if metrics is not None:
                from shop.gauges import show_streams

                sources = [topic.name for topic in SOURCES]
                show_streams(metrics, GROUP, sources, connection, reading.is_set)
            server = health_server(shop)
            try:
                derive(connection, application, pix_limit=limit, ready=ready, stop=stop)
            finally:
                if server is not None:
                    server.close()

    run_process(context, "stream", work)


@contextmanager
def _alone(directory: Path) -> Iterator[Path]:
    """The directory, of which no other process has the use meanwhile."""
    from shop.broker import locks

    directory.mkdir(parents=True, exist_ok=True)
    lock = locks.acquire(directory / "lock")
    if lock is None:
        raise CommandFailed(
            f"a stream already runs in {directory}; another one needs a SHOP_DATA_DIR of its own"
        )
    try:
        yield directory
    finally:
        os.close(lock)
