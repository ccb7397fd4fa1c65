"""A process of one group that kills itself (SIGKILL) at a step of its batches: the test's hooks
are subclasses here, so there are none in what is shipped.

`python -m tests.faults.crashing STEP SERVERS FOLDER SOURCE TARGET LETTERS GROUP`
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from shop import telemetry
from shop.databases import Databases
from shop.db.relay import Relay
from shop.db.store import DatabaseStore
from shop.db.work import Work
from shop.fraud.model import Decision
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.dead_letter import DeadLetters
from shop.kafka.listener import ListenerRegistry, listener
from shop.kafka.retry import Retry
from shop.kafka.store import Move
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from shop.kafka.wire import EnvelopeCodec
from shop.settings import Settings

TEXT = EnvelopeCodec[str]({"java.lang.String": str})

STEPS = (
    "polled, nothing begun",
    "position moved",
    "receipts claimed",
    "first listener called",
    "last listener called",
    "written, not committed",
    "committed, not told to Kafka",
    "dead letter begun",
    "dead letter written, not committed",
    "dead letter committed",
    "outbox read",
    "published, not deleted",
    "deleted",
)


def crash_at(step: str) -> None:
    if step == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)


class CrashingStore(DatabaseStore):
    @contextmanager
    def transaction(self, group: str, moves: Sequence[Move]) -> Iterator[Any]:
        crash_at("polled, nothing begun")
        calls = 0
        buried = False
        with super().transaction(group, moves) as batch:
            crash_at("position moved")
            claim, work, publish, finish = batch.claim, batch.work, batch.publish, batch.finish

            def claimed(receipts: Sequence[str]) -> set[str]:
                found = claim(receipts)
                crash_at("receipts claimed")
                return found

            def worked(*arguments: Any) -> Work:
                nonlocal calls
                if calls:
                    crash_at("first listener called")
                calls += 1
                return work(*arguments)

            def published(record: Any) -> None:
                nonlocal buried
                buried = True
                crash_at("dead letter begun")
                publish(record)

            def finished() -> None:
                if calls:
                    crash_at("last listener called")
                finish()
                if calls:
                    crash_at("written, not committed")
                if buried:
                    crash_at("dead letter written, not committed")

            batch.claim, batch.work = claimed, worked  # type: ignore[method-assign]
            batch.publish, batch.finish = published, finished  # type: ignore[method-assign]
            yield batch
        if calls:
            crash_at("committed, not told to Kafka")
        if buried:
            crash_at("dead letter committed")


class CrashingRelay(Relay):
    def _read(self) -> Sequence[Any]:
        rows = super()._read()
        if rows:
            crash_at("outbox read")
        return rows

    def _write(self, result: Any) -> int:
        crash_at("published, not deleted")
        written = super()._write(result)
        if written:
            crash_at("deleted")
        return written


def main() -> None:
    _, _, servers, folder, source_name, target_name, letters, group = sys.argv
    source, target = Topic(source_name, TEXT), Topic(target_name, TEXT)

    @listener(source, group=group, retry=Retry(attempts=1))
    def decide(text: str, work: Work) -> None:
        if text.startswith("bad"):
            raise ValueError(text)
        work.add(Decision, order_id=text, amount=Decimal(1), is_fraud=False)
        work.send(target, text, text)

    telemetry.configure(Settings(), "crashing")  # traces where the variables ask for it
    kafka = Connection(servers)
    database = Databases(Settings(data_dir=Path(folder))).of("fraud")
    registry = ListenerRegistry()
    registry.add(decide)
    container = ListenerContainer(
        kafka,
        group,
        registry.endpoints(group, Work),
        store=CrashingStore(database),
        dead_letters=DeadLetters(letters),
        instance="only",  # so that the next one has the partitions at once
        session_timeout_ms=6000,
    )
    CrashingRelay(database, KafkaTemplate(kafka, timeout_s=0, name="relay")).start()
    container.start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
