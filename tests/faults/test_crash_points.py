"""SIGKILL between each pair of steps of a batch, of a dead letter and of the relay."""

import signal
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from uuid import uuid4

from sqlalchemy import select

from shop.db.tables import outbox
from shop.fraud.model import Decision
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from tests.backends import Backend
from tests.faults.crashing import STEPS, TEXT
from tests.reading import count, event_id, read_all
from tests.waiting import eventually

PER_STEP = 20


def test_a_crash_between_any_two_steps_loses_and_doubles_nothing(
    kafka: Connection, backend: Backend, tmp_path: Path
) -> None:
    source, target, letters = (
        Topic(f"{name}-{uuid4().hex[:8]}", TEXT, partitions=1) for name in "STL"
    )
    create_topics(kafka, [source, target, letters])
    database = backend.open("fraud", tmp_path)
    group = f"group-{uuid4().hex[:8]}"
    names = (source.name, target.name, letters.name, group)

    def start(step: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tests.faults.crashing", step]
        return subprocess.Popen([*command, kafka.bootstrap_servers, str(tmp_path), *names])

    sent: list[str] = []
    with KafkaTemplate(kafka) as template:
        for number, step in enumerate(STEPS):
            texts = [f"{number}-{n}" for n in range(PER_STEP)]
            texts[7] = f"bad {number}"
            for text in texts:
                template.send_async(source, text, text)
            assert template.flush(60) == 0
            sent += texts
            process = start(step)
            assert process.wait(60) == -signal.SIGKILL, f"it did not come to: {step}"

    good = {text for text in sent if not text.startswith("bad")}
    process = start("never")
    try:
        eventually(lambda: count(database, Decision) == len(good), "all decided", 60)
        eventually(lambda: count(database, outbox) == 0, "all published", 60)
    finally:
        process.kill()
        process.wait()
    with database.read() as connection:
        assert set(connection.scalars(select(Decision.order_id))) == good
    database.close()

    ids: dict[str, set[str]] = defaultdict(set)
    for record in read_all(kafka, target):
        ids[TEXT.decode(record.value())[0]].add(event_id(record))
    assert Counter({text: len(found) for text, found in ids.items()}) == Counter(good)
    dead: dict[str, set[str]] = defaultdict(set)
    for record in read_all(kafka, letters):
        failed = TEXT.decode(TEXT.decode(record.value())[0].encode())[0]
        dead[failed].add(event_id(record))
    assert {text: len(found) for text, found in dead.items()} == {
        text: 1 for text in sent if text not in good
    }
