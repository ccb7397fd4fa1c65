"""The audit trail in a real SQLite file, written as the listener writes it."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from shop.db.database import Database
from shop.db.schema import upgrade
from shop.db.store import DatabaseStore
from shop.kafka.store import Move, Partition
from shop.kafka.wire import Headers, Message
from shop.log.content import Content, ContentCodec
from shop.log.listeners import AuditLog

TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"


class Trail:
    """`keep` is what the listener does with a record of one batch."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._store = DatabaseStore(database)
        self._log = AuditLog(personal_data="short")
        self._offsets: Counter[str] = Counter()

    def keep(
        self,
        topic: str,
        correlation_id: str,
        at: int = 0,
        *,
        order_id: str | None = None,
        event_id: str | None = None,
        value: bytes | None = None,
        copies: int = 1,
    ) -> int:
        """The offset of the first copy. An order's record, if it has an id and no value."""
        payload = {"orderId": order_id, "amount": 1} if order_id else "a text"
        value = json.dumps({"type": "T", "payload": payload}).encode() if value is None else value
        content, _ = ContentCodec().decode(value)
        first = self._offsets[topic]
        self._offsets[topic] += copies
        move = Move(Partition(topic, 0), first or None, first + copies)
        with self._store.transaction("log", [move]) as transaction:
            for offset in range(first, first + copies):
                message = _message(topic, offset, at, correlation_id, event_id, content)
                self._log.note(message, transaction.work(message, "cause", "AuditLog"))
        return first


def _message(
    topic: str,
    offset: int,
    at: int,
    correlation_id: str,
    event_id: str | None,
    content: Content,
) -> Message[Content]:
    headers: Headers = []
    return Message(
        content, "ana@example.com", topic, 0, offset, at, event_id or str(uuid4()),
        correlation_id, TRACEPARENT, headers, b"ana@example.com",
    )  # fmt: skip


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'log.db'}")
    upgrade(database, "shop.log")
    yield database
    database.close()


@pytest.fixture
def trail(database: Database) -> Trail:
    return Trail(database)
