"""A Quix application that is exactly once within Kafka, and goes on at once after a kill.

What a checkpoint read, wrote and remembers is one Kafka transaction. A process that is killed
leaves one open, and readers wait behind it until the same transactional id begins again, or the
transaction's time is over. So the id belongs to the directory of the state, as the group
membership does: whoever starts there again goes on at once. docs/decisions/0009.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from confluent_kafka import KafkaException, TopicPartition

from shop.kafka.connection import Connection
from shop.kafka.errors import KafkaError
from shop.kafka.ids import random_id
from shop.kafka.template import IN_FLIGHT
from shop.streams.internal import InternalTopics
from shop.streams.quix import Application, QuixException, TopicManager

GROUP = "streams"
CHECKPOINT_S = 0.5  # until others see what was derived; once more for what was regrouped
# Readers wait so long, and up to 10 s more until the broker looks, behind a process that never
# came back; brokers that are away for longer end the process.
TRANSACTION_TIMEOUT_MS = 15_000
POLL_S = 0.1
# Quix asks for the offsets of each partition, one after another, when it gets them, and each answer
# waits behind a fetch for new records: 10 s for our 36 with the default of 500.
FETCH_WAIT_MS = 20


class StreamApplication(Application):
    """A Quix application that leaves signals to its process."""

    _assigned: Callable[[], None] | None = None

    def run_until(self, stop: threading.Event, assigned: Callable[[], None]) -> None:
        """Run until `stop` is set, then commit what is in hand. `assigned` is called once, when
        there are partitions. Raises KafkaError when it cannot go on."""
        ended = threading.Event()

        def stop_when_asked() -> None:
            stop.wait()
            while not ended.wait(POLL_S):  # one that only just begins forgets that it was asked
                self.stop()

        self._assigned = assigned
        threading.Thread(target=stop_when_asked, name="stop", daemon=True).start()
        try:
            with cannot_go_on():
                self.run()
        finally:
            ended.set()
            stop.set()

    def _setup_signal_handlers(self) -> None:
        pass

    def _on_assign(self, consumer: Any, topic_partitions: list[TopicPartition]) -> None:
        super()._on_assign(consumer, topic_partitions)
        assigned, self._assigned = self._assigned, None
        if assigned is not None:
            assigned()


def stream_application(
    connection: Connection,
    state: Path,
    *,
    auto_offset_reset: Literal["earliest", "latest", "none"],
    session_timeout_ms: int,
    max_poll_interval_ms: int,
) -> StreamApplication:
    """An application without streams yet, with its state and its identity under `state`, which
    must be this process's alone."""
    cluster_id = connection.metadata().cluster_id
    directory = state / quote(cluster_id, safe="")  # the state of one cluster is none of another's
    identity = _identity(directory)
    config = connection.client_config("streams")
    return StreamApplication(
        connection.address(),
        consumer_group=GROUP,
        auto_offset_reset="error" if auto_offset_reset == "none" else auto_offset_reset,
        commit_interval=CHECKPOINT_S,
        consumer_extra_config=config
        | {
            "group.instance.id": identity,
            "session.timeout.ms": session_timeout_ms,
            "max.poll.interval.ms": max_poll_interval_ms,
            "fetch.wait.max.ms": FETCH_WAIT_MS,
        },
        producer_extra_config=config
        | {
            "transactional.id": f"{GROUP}-{identity}",
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            "socket.timeout.ms": TRANSACTION_TIMEOUT_MS,  # at most that long
            "compression.type": "lz4",
            "max.in.flight": IN_FLIGHT,
        },
        state_dir=directory,
        consumer_poll_timeout=POLL_S,
        loglevel=None,
        topic_manager=TopicManager(InternalTopics(connection), GROUP),
        processing_guarantee="exactly-once",
        broker_availability_timeout=0,  # wait for as long as it takes, as all our processes do
        auto_recover_from_source_offset_out_of_range=False,  # it would delete the state
    )


@contextmanager
def cannot_go_on() -> Iterator[None]:
    """What Quix raises, as a KafkaError of one line."""
    try:
        yield
    except (QuixException, KafkaException, RuntimeError) as error:
        raise KafkaError(
            f"the streams cannot go on: {_cause(error)}; started again, they go on where they "
            "last committed"
        ) from error


def _cause(error: BaseException) -> str:
    """What happened, under what Quix wraps around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    detail = error.args[0] if error.args else error
    return detail.str() if hasattr(detail, "str") else f"{type(error).__name__}: {detail}"


def _identity(directory: Path) -> str:
    """The name of whoever works on this directory; it stays over restarts."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "identity"
    if not path.exists():
        written = path.with_suffix(".new")
        written.write_text(random_id())
        written.replace(path)
    return path.read_text()
