"""The container's store on a service's database."""

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, delete, select, text, tuple_
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from shop.db.availability import is_unavailable
from shop.db.database import Database
from shop.db.tables import held_key, position, receipt, topic_read
from shop.db.work import Buffer, Notes, Work, buffer_of
from shop.kafka.dispatch import RecordFailed
from shop.kafka.errors import Fenced, PositionLost
from shop.kafka.outbound import OutboundRecord
from shop.kafka.starting import HOW_TO_CHOOSE
from shop.kafka.store import HeldKey, Move, Partition
from shop.kafka.wire import Message

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
        self.buffer.extend(buffer_of(notes))

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
        return Work(Notes(group), message, cause, title)
