"""The unit of work that listeners get, and the buffer that keeps what it takes note of."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, update
from sqlalchemy.orm import Session

from shop.db.database import Database
from shop.db.outbox import write_outbox
from shop.db.tables import Base
from shop.kafka import correlation
from shop.kafka.ids import derived_id
from shop.kafka.outbound import OutboundRecord, outbound
from shop.kafka.topic import Topic
from shop.kafka.wire import Message

E = TypeVar("E")


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


class Unit(Protocol):
    """What a unit of work writes to: a batch in its transaction, or notes."""

    group: str
    buffer: Buffer

    @property
    def session(self) -> Session: ...


class Work:
    """One record's unit of work: effects and sends, true together with the batch or not at all.

    `add`, `add_if_absent`, `put`, `count` and `send` only take note; one flush at the end of the
    batch writes everything. So reads through `session` see what was there before the batch. Used by
    the thread that calls the listener, and only during that call.
    """

    __slots__ = ("_batch", "_cause", "_correlation_id", "_message", "_sent", "_title")

    def __init__(self, batch: "Unit", message: Message[Any], cause: str, title: str) -> None:
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


class Notes:
    """What a unit of work outside of a transaction writes to."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.buffer = Buffer()

    @property
    def session(self) -> Session:
        raise TypeError("a repeatable listener is called outside the transaction: no session")


def buffer_of(work: Work) -> Buffer:
    return work._batch.buffer
