"""The container's store on a service's database, and the unit of work that listeners get."""

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, delete, select, text, tuple_, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from shop.db.database import Database, is_unavailable
from shop.db.tables import Base, held_key, outbox, position, receipt, topic_read
from shop.kafka import correlation
from shop.kafka.dispatch import RecordFailed
from shop.kafka.errors import Fenced, PositionLost
from shop.kafka.ids import derived_id
from shop.kafka.starting import HOW_TO_CHOOSE
from shop.kafka.store import HeldKey, Move, Partition
from shop.kafka.template import OutboundRecord, outbound
from shop.kafka.topic import Topic
from shop.kafka.wire import Message

E = TypeVar("E")

_headers = msgspec.msgpack.Encoder()

# One statement and one parameter for a whole batch: half the time of an executemany.
_CLAIM = {
    name: text(
        f"INSERT INTO receipt (consumer_group, id, received_at) "
        f"SELECT :consumer_group, {ids} WHERE true ON CONFLICT DO NOTHING RETURNING id"
    )
    for name, ids in {
        "sqlite": "value, :now FROM json_each(:ids)",
        "postgresql": "id, :now FROM unnest(CAST(:ids AS text[])) AS id",
    }.items()
}

_FIRST_MOVE = text(
    "INSERT INTO position (consumer_group, topic, partition, next_offset) "
    "VALUES (:group, :topic, :partition, :to) ON CONFLICT DO NOTHING"
)
_MOVE = text(
    "UPDATE position SET next_offset = :to WHERE consumer_group = :group AND topic = :topic "
    "AND partition = :partition AND next_offset = :held"
)


class Buffer:
    """What the listeners of one batch want written, until one flush writes it."""

    def __init__(self) -> None:
        self.sends: list[OutboundRecord] = []
        self._rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        self._counts: dict[tuple[Any, ...], tuple[int, dict[str, Any]]] = {}

    def put(
        self, model: type[Base], values: dict[str, Any], on_conflict: tuple[str, ...] | None
    ) -> None:
        self._rows.setdefault((model, on_conflict, *values), []).append(values)

    def count(
        self,
        model: type[Base],
        column: str,
        key: Mapping[str, Any],
        values: dict[str, Any],
        by: int = 1,
    ) -> None:
        name = (model, column, *sorted(key.items()))
        before, _ = self._counts.get(name, (0, {}))
        self._counts[name] = before + by, values

    def extend(self, other: "Buffer") -> None:
        self.sends += other.sends
        for statement, rows in other._rows.items():
            self._rows.setdefault(statement, []).extend(rows)
        for (model, column, *key), (by, values) in other._counts.items():
            self.count(model, column, dict(key), values, by)

    def flush(self, database: Database, connection: Connection) -> None:
        for (model, on_conflict, *_), rows in self._rows.items():
            if on_conflict is not None and database.path is None:
                key = [column.name for column in model.__table__.primary_key]
                rows.sort(key=lambda row: [str(row.get(name)) for name in key])  # no deadlocks
            connection.execute(_insert(database.insert, model, on_conflict), rows)
        for (model, column, *key), (by, values) in sorted(self._counts.items(), key=_counted):
            table = model.__table__
            row = [table.c[name] == value for name, value in key]
            new = {column: table.c[column] + by, **values}
            connection.execute(update(table).where(*row).values(new))
        write_outbox(connection, self.sends)


def _counted(count: tuple[tuple[Any, ...], Any]) -> tuple[str, str]:
    """In the same order by everyone: no deadlocks."""
    model, *name = count[0]
    return model.__tablename__, repr(name)


@lru_cache(maxsize=512)  # building a statement costs more than running it
def _insert(
    insert: Callable[[Any], Any], model: type[Base], on_conflict: tuple[str, ...] | None
) -> Any:
    statement = insert(model.__table__)
    if on_conflict is None:
        return statement
    if not on_conflict:
        return statement.on_conflict_do_nothing()
    key = [column.name for column in model.__table__.primary_key]
    new = {name: statement.excluded[name] for name in on_conflict}
    return statement.on_conflict_do_update(index_elements=key, set_=new)


class Work:
    """One record's unit of work: effects and sends, true together with the batch or not at all.

    `add`, `add_if_absent`, `put`, `count` and `send` only take note; one flush at the end of the
    batch writes everything. So reads through `session` see what was there before the batch. Used by
    the thread that calls the listener, and only during that call.
    """

    __slots__ = ("_batch", "_cause", "_correlation_id", "_message", "_sent", "_title")

    def __init__(
        self, batch: "_Batch | _Notes", message: Message[Any], cause: str, title: str
    ) -> None:
        self._batch = batch
        self._message = message
        self._cause = cause
        self._title = title
        self._correlation_id: str | None = None
        self._sent = 0

    def add(self, model: type[Base], **values: Any) -> None:
        """Insert a row; one with its key already there fails the record."""
        self._batch.buffer.put(model, values, None)

    def add_if_absent(self, model: type[Base], **values: Any) -> None:
        """Insert a row unless one with the same key, or a unique value of it, is there."""
        self._batch.buffer.put(model, values, ())

    def put(self, model: type[Base], update: tuple[str, ...], **values: Any) -> None:
        """Insert a row or, where its primary key is there, set the columns `update` of it."""
        self._batch.buffer.put(model, values, update)

    def count(self, model: type[Base], column: str, key: Mapping[str, Any], **values: Any) -> None:
        """Add 1 to `column` of the row with this key and set `values` in it; nothing where there
        is no such row. One UPDATE per row for the whole batch."""
        self._batch.buffer.count(model, column, key, values)

    def send(self, topic: Topic[E], key: str | None, event: E) -> None:
        """Send an event when the batch is committed. Its event id is derived from the record at
        hand, so handling that record again sends the same event, not another one."""
        if self._correlation_id is None:
            self._correlation_id = correlation.through(self._message.correlation_id, self._title)
        self._batch.buffer.sends.append(
            outbound(
                topic,
                key,
                event,
                correlation_id=self._correlation_id,
                event_id=derived_id(self._cause, self._batch.group, self._sent),
                traceparent=self._message.traceparent,
            )
        )
        self._sent += 1

    @property
    def session(self) -> Session:
        """An ORM session in the batch's transaction, for reading and for writes that `add` and
        `put` cannot say. Never commit it. A repeatable listener, called outside, has none."""
        return self._batch.session


class _Batch:
    """The BatchTransaction of one batch."""

    def __init__(self, database: Database, connection: Connection, group: str) -> None:
        self.group = group
        self.buffer = Buffer()
        self._database = database
        self._connection = connection
        self._session: Session | None = None

    def claim(self, receipts: Sequence[str]) -> set[str]:
        ids = sorted(set(receipts))
        parameters = {
            "consumer_group": self.group,
            "ids": json.dumps(ids) if self._database.path else ids,
            "now": int(time.time()),
        }
        claimed = set(self._connection.scalars(_CLAIM[self._database.engine.name], parameters))
        if not claimed.issubset(ids):
            raise ValueError(
                f"the database changed receipts: {sorted(claimed.difference(ids))[:3]}"
            )
        return claimed

    def work(self, message: Message[Any], cause: str, title: str) -> Work:
        return Work(self, message, cause, title)

    def accept(self, notes: Work) -> None:
        self.buffer.extend(notes._batch.buffer)

    def publish(self, record: OutboundRecord) -> None:
        self.buffer.sends.append(record)

    def held(self, keys: Collection[HeldKey]) -> dict[HeldKey, list[str]]:
        if not keys:
            return {}
        query = select(held_key.c.topic, held_key.c.name, held_key.c.letter).where(
            held_key.c.consumer_group == self.group,
            tuple_(held_key.c.topic, held_key.c.name).in_([tuple(key) for key in keys]),
        )
        found: dict[HeldKey, list[str]] = {}
        for topic, name, letter in self._connection.execute(query.order_by(held_key.c.id)):
            found.setdefault(HeldKey(topic, name), []).append(letter)
        return found

    def hold(self, key: HeldKey, letter: str) -> None:
        values = {"consumer_group": self.group, **key._asdict(), "letter": letter}
        self._connection.execute(self._database.insert(held_key).on_conflict_do_nothing(), values)

    def release(self, key: HeldKey, letter: str) -> None:
        row = {"consumer_group": self.group, **key._asdict(), "letter": letter}
        wanted = [held_key.c[name] == value for name, value in row.items()]
        self._connection.execute(delete(held_key).where(*wanted))

    @property
    def session(self) -> Session:
        if self._session is None:
            self._session = Session(self._connection)
        return self._session

    def move(self, moves: Sequence[Move]) -> None:
        """Compare and set each position; raises Fenced where another consumer has moved it."""
        for (topic, partition), held, to in moves:
            values = {"group": self.group, "topic": topic, "partition": partition, "to": to}
            statement = _FIRST_MOVE if held is None else _MOVE
            result = self._connection.execute(
                statement, values | ({} if held is None else {"held": held})
            )
            if result.rowcount != 1:
                raise Fenced(f"another consumer has moved {topic}[{partition}] on from {held}")

    def finish(self) -> None:
        if self._session is not None:
            self._session.flush()
        self.buffer.flush(self._database, self._connection)


class _Notes:
    """What a unit of work outside of a transaction writes to."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.buffer = Buffer()

    @property
    def session(self) -> Session:
        raise TypeError("a repeatable listener is called outside the transaction: no session")


class DatabaseStore:
    """Implements shop.kafka.store.Store on a Database. Thread-safe."""

    work_type = Work

    def __init__(self, database: Database) -> None:
        self._database = database

    def positions(self, group: str, partitions: Iterable[Partition]) -> Mapping[Partition, int]:
        wanted = [tuple(partition) for partition in partitions]
        if not wanted:
            return {}
        query = select(position.c.topic, position.c.partition, position.c.next_offset)
        query = query.where(
            position.c.consumer_group == group,
            tuple_(position.c.topic, position.c.partition).in_(wanted),
        )
        with self._database.read() as connection:
            return {Partition(t, p): offset for t, p, offset in connection.execute(query)}

    def recognise(self, group: str, topic_ids: Mapping[str, str]) -> None:
        query = select(topic_read.c.topic, topic_read.c.id).where(
            topic_read.c.consumer_group == group
        )
        with self._database.read() as connection:
            known = {row.topic: row.id for row in connection.execute(query)}
        anew = [topic for topic, id_ in topic_ids.items() if known.get(topic, id_) != id_]
        if anew:
            raise PositionLost(
                f"group {group} has positions in {', '.join(anew)}, but of a topic that is gone: "
                "it was made anew and holds other records at the same offsets; nothing was "
                f"skipped. {HOW_TO_CHOOSE}"
            )
        new = [
            {"consumer_group": group, "topic": topic, "id": id_}
            for topic, id_ in sorted(topic_ids.items())
            if topic not in known
        ]
        if new:
            with self._database.write() as connection:
                statement = self._database.insert(topic_read).on_conflict_do_nothing()
                connection.execute(statement, new)

    @contextmanager
    def transaction(self, group: str, moves: Sequence[Move]) -> Iterator[_Batch]:
        with self._database.write() as connection:
            batch = _Batch(self._database, connection, group)
            batch.move(moves)
            try:
                yield batch
            except RecordFailed as failed:
                if isinstance(failed.error, DBAPIError) and is_unavailable(failed.error):
                    raise failed.error from None  # of a listener's session; no record's fault
                raise
            batch.finish()

    def seen(self, group: str, receipts: Sequence[str]) -> set[str]:
        query = select(receipt.c.id).where(
            receipt.c.consumer_group == group, receipt.c.id.in_(receipts)
        )
        with self._database.read() as connection:
            return set(connection.scalars(query))

    def notes(self, group: str, message: Message[Any], cause: str, title: str) -> Work:
        return Work(_Notes(group), message, cause, title)


def write_outbox(connection: Connection, records: Sequence[OutboundRecord]) -> None:
    """Leave records in the outbox, in this order, within the connection's transaction."""
    if records:
        now = time.time_ns() // 1_000_000
        connection.execute(
            outbox.insert(),
            [
                {
                    "topic": record.topic,
                    "key": None if isinstance(record.key, bytes) else record.key,
                    "raw_key": record.key if isinstance(record.key, bytes) else None,
                    "value": record.value,
                    "headers": _headers.encode(record.headers),
                    "created_at": now,
                }
                for record in records
            ],
        )
