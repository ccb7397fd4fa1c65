"""A group under test: its listeners, its members, and what its database must say at any time."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Integer, MetaData, event
from sqlalchemy.orm import Mapped, mapped_column

from shop.db.database import Database
from shop.db.store import DatabaseStore
from shop.db.tables import Base, messaging
from shop.kafka.container import ListenerContainer
from shop.kafka.errors import Fenced, StoreUnavailable
from shop.kafka.letter import REDRIVE_OF, DeadLetterCodec, Letter, opened
from shop.kafka.outbound import OutboundRecord
from shop.kafka.store import Move, Partition
from shop.kafka.topic import Topic
from shop.kafka.wire import EVENT_ID, REDRIVE_TO, EnvelopeCodec, Message
from tests.unit.model_broker import ModelBroker, ModelConsumer, ModelRecord

GROUP, ELSEWHERE, LETTERS = "group", "another-group", "letters"
TEXT = EnvelopeCodec[str]({"java.lang.String": str})
PLAIN, HELD = Topic("plain", TEXT), Topic("held", TEXT)  # HELD's keys are held back
POISON = b'{"type":\xff'
ATTEMPTS = 3


class Own(Base):
    __abstract__ = True
    metadata = MetaData()


class Effect(Own):
    __tablename__ = "effect"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str]
    topic: Mapped[str]
    partition: Mapped[int]
    offset: Mapped[int]


class Died(BaseException):
    """The process ends here."""


class Place(NamedTuple):
    """Where a record lies."""

    partition: Partition
    offset: int


class Faltering(DatabaseStore):
    """Its next transaction fails as `fault` says. `troubles` counts what was no record's fault."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.fault = ""
        self.troubles = 0

    @contextmanager
    def transaction(self, group: str, moves: Sequence[Move]) -> Iterator[Any]:
        fault, self.fault = self.fault, ""
        try:
            if fault == "away":
                raise StoreUnavailable("away")
            with super().transaction(group, moves) as batch:
                yield batch
            if fault == "answer lost":
                raise StoreUnavailable("committed, but nobody heard it")
        except (Fenced, StoreUnavailable):
            self.troubles += 1
            raise
        if fault == "died after commit":
            raise Died


@dataclass(eq=False)
class Member:
    """A process with one consumer."""

    container: ListenerContainer
    client: ModelConsumer
    failed: list[tuple[Place, str]] = field(default_factory=list)  # in the turn at hand, and how
    tries: Counter[Place] = field(default_factory=Counter)
    not_before: dict[tuple[Partition, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.consumer,) = self.container._consumers
        self.intake = self.consumer._intake
        self.intake.open()

    def assignment(self, partition: Partition) -> tuple[Partition, int]:
        return partition, self.client.assignments[partition]


class Tables:
    """The database, with a connection that sees only what was committed. Not durable: nothing here
    ends the machine."""

    def __init__(self, path: Path) -> None:
        self.database = Database(f"sqlite:///{path}")
        event.listen(
            self.database.engine,
            "connect",
            lambda connection, _: connection.execute("PRAGMA synchronous = OFF"),
        )
        with self.database.write() as connection:
            messaging.create_all(connection)
            Own.metadata.create_all(connection)
        self.sql = sqlite3.connect(path, isolation_level=None)

    def close(self) -> None:
        self.sql.close()
        self.database.close()

    def empty(self) -> None:
        self.sql.execute("BEGIN")
        for table in [*messaging.tables, *Own.metadata.tables]:
            self.sql.execute(f"DELETE FROM {table}")
        self.sql.execute("INSERT INTO effect VALUES (0, '', '', 0, 0)")  # for clashes
        self.sql.execute("COMMIT")

    def positions(self) -> dict[Partition, int]:
        rows = self.sql.execute("SELECT topic, partition, next_offset FROM position")
        return {Partition(topic, number): offset for topic, number, offset in rows}

    def effects(self) -> list[tuple[str, Place]]:
        rows = self.sql.execute(
            "SELECT name, topic, partition, offset FROM effect WHERE id > 0 ORDER BY id"
        )
        return [(name, Place(Partition(topic, at), offset)) for name, topic, at, offset in rows]

    def outbox(self, after: int = 0, most: int = -1) -> list[tuple[int, OutboundRecord]]:
        rows = self.sql.execute(
            "SELECT id, topic, key, raw_key, value, headers FROM outbox WHERE id > ? "
            "ORDER BY id LIMIT ?",
            [after, most],
        )
        return [
            (id_, OutboundRecord(topic, raw if key is None else key.encode(), value, _headers(h)))
            for id_, topic, key, raw, value, h in rows
        ]

    def held_back(self) -> set[str]:
        return {letter for (letter,) in self.sql.execute("SELECT letter FROM held_key")}


def _headers(encoded: bytes) -> list[tuple[str, bytes]]:
    return msgspec.msgpack.decode(encoded, type=list[tuple[str, bytes]])


def as_letter(record: OutboundRecord) -> Letter:
    event, correlation_id = DeadLetterCodec().decode(record.value)
    event_id = dict(record.headers)[EVENT_ID].decode()
    assert not isinstance(record.key, str)
    return opened(
        Message(
            event, None, record.topic, 0, 0, 0, event_id, correlation_id or "", None,
            record.headers, record.key,
        )
    )  # fmt: skip


class Audit:
    """What must be true of the database after each turn, whatever happened.

    `failures`: how often the listener failed for each record, to be kept by who calls it."""

    def __init__(self, tables: Tables, broker: ModelBroker) -> None:
        self.failures: Counter[Place] = Counter()
        self.letters: dict[Place, Letter] = {}
        self.positions: dict[Partition, int] = {}
        self._tables = tables
        self._broker = broker
        self._outbox_read = 0
        self._sent: Counter[str] = Counter()

    def look(self) -> None:
        before, self.positions = self.positions, self._tables.positions()
        for id_, record in self._tables.outbox(after=self._outbox_read):
            self._outbox_read = id_
            if record.topic == LETTERS:
                self._note(as_letter(record))
            else:
                self._sent[TEXT.decode(record.value)[0]] += 1
        effects = self._tables.effects()
        names = {name for name, _ in effects}
        assert len(names) == len(effects), "an effect happened twice"
        for name, (partition, offset) in effects:
            assert offset < self.positions[partition], f"{name} is handled, the position is before"
        handled_plain = [name for name, at in effects if at.partition.topic == PLAIN.name]
        assert self._sent == Counter(f"{name}>" for name in handled_plain)
        for partition, offset in before.items():
            assert offset <= self.positions[partition], "a position went back"
        for partition, offset in self.positions.items():
            for record_ in self._broker.logs[partition][before.get(partition, 0) : offset]:
                assert record_ is None or self._is_settled(record_, names), (
                    f"{record_} is passed over"
                )

    def _is_settled(self, record: ModelRecord, handled: set[str]) -> bool:
        if dict(record.headers_).get(REDRIVE_TO) == ELSEWHERE.encode():
            return True
        if Place(record.place, record.offset_) in self.letters:
            return True
        return record.value_ != POISON and TEXT.decode(record.value_)[0] in handled

    def _note(self, letter: Letter) -> None:
        assert letter.topic is not None
        assert letter.partition is not None
        assert letter.offset is not None
        place = Place(Partition(letter.topic, letter.partition), letter.offset)
        assert place not in self.letters, "a second letter of one record"
        self.letters[place] = letter
        record = self._broker.logs[place.partition][place.offset]
        assert record is not None
        told = dict(record.headers_)
        assert told.get(REDRIVE_TO) != ELSEWHERE.encode(), "a letter of what is for others"
        assert (letter.key, letter.value) == (record.key_, record.value_)
        assert letter.event_id == told[EVENT_ID].decode()
        assert letter.id == told.get(REDRIVE_OF, letter.id.encode()).decode()
        attempts = letter.attempts or 0  # those whose letter could not be written count too
        match (letter.exception or "").rpartition(".")[2]:
            case "HeldBack":
                assert letter.topic == HELD.name
                assert letter.key is not None
            case "WireError":
                assert letter.value == POISON
                assert attempts >= 1
            case "Refused":
                assert attempts >= 1
            case why:
                assert why in ("RuntimeError", "IntegrityError")
                assert attempts >= ATTEMPTS <= self.failures[place]
