"""Effects outside of the database that may be repeated, and records that all count."""

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from shop.db.database import Database
from shop.db.store import DatabaseStore
from shop.db.tables import outbox, receipt
from shop.db.work import Work
from shop.fraud.model import Decision
from shop.kafka.container import ListenerContainer
from shop.kafka.errors import ListenerDeclarationError
from shop.kafka.listener import every_record, listener
from shop.kafka.outbound import outbound
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from shop.kafka.wire import EnvelopeCodec, Message
from tests.reading import count
from tests.waiting import eventually

TEXT = EnvelopeCodec[str]({"java.lang.String": str})

Listen = Callable[..., ListenerContainer]
MakeTopic = Callable[..., Topic[str]]


def writer(source: Topic[str], target: Topic[str], group: str, folder: Path) -> Any:
    """Its effect is a file; it notes a row and sends an event."""
    refused = Counter[str]()

    @listener(source, group=group, external=True, repeatable=True)
    def write(text: str, work: Work) -> None:
        (folder / text).write_text(text)
        if text.startswith("late") and refused[text] < 2:
            refused[text] += 1
            raise ValueError(text)
        work.add(Decision, order_id=text, amount=Decimal(1), is_fraud=False)
        work.send(target, text, text)

    return write


def test_an_effect_that_may_be_repeated_is_settled_once_for_the_whole_batch(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    database: Database, store: DatabaseStore, tmp_path: Path,
) -> None:  # fmt: skip
    source, target = make_topic(TEXT, partitions=2), make_topic(TEXT)
    repeated = outbound(source, "0", "repeated", correlation_id="Test(1)")
    for _ in range(3):
        template.publish(repeated, lambda *_: None)
    for number in range(300):
        template.send_async(
            source, str(number), f"{'late' if number % 100 == 7 else 'file'}{number}"
        )
    assert template.flush(60) == 0

    listen(writer(source, target, group, tmp_path), store=store)

    eventually(lambda: count(database, Decision) == 301)
    assert count(database, outbox) == 301
    assert count(database, receipt) == 301
    with database.read() as connection:
        noted = set(connection.scalars(select(Decision.order_id)))
    assert {path.name for path in tmp_path.glob("*[0-9]")} == noted - {"repeated"}


def test_a_listener_outside_the_transaction_has_no_session(store: DatabaseStore) -> None:
    message = Message("a", "k", "T", 0, 0, 0, "event", "Test(1)", None, [])
    work = store.notes("g", message, "event", "Test")
    with pytest.raises(TypeError, match="no session"):
        _ = work.session


def test_only_an_external_effect_can_be_repeatable(make_topic: MakeTopic) -> None:
    with pytest.raises(ListenerDeclarationError, match="external=True"):
        listener(Topic("T", TEXT), group="g", repeatable=True)


def test_where_every_record_counts_repeats_are_handled_too_and_no_receipt_is_kept(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    database: Database, store: DatabaseStore,
) -> None:  # fmt: skip
    source = make_topic(TEXT)
    record = outbound(source, "k", "same", correlation_id="Test(1)")
    for _ in range(3):
        template.publish(record, lambda *_: None)
    assert template.flush(60) == 0

    @listener(source, group=group, once=every_record)
    def note(message: Message[str], work: Work) -> None:
        order_id = f"{message.event}-{message.offset}"
        work.add(Decision, order_id=order_id, amount=Decimal(1), is_fraud=False)

    listen(note, store=store)

    eventually(lambda: count(database, Decision) == 3)
    assert count(database, receipt) == 0
