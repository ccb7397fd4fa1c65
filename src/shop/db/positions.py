"""A group's positions in a service's database, looked at and set from outside."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import inspect, select

from shop.db.database import Database
from shop.db.tables import outbox, position, topic_read
from shop.kafka.store import Partition


def stored_positions(database: Database, group: str) -> dict[Partition, int]:
    """The next offset of each partition that the group has one for; none in a database that has
    no tables yet. Raises StoreUnavailable."""
    query = select(position.c.topic, position.c.partition, position.c.next_offset)
    query = query.where(position.c.consumer_group == group)
    with database.read() as connection:
        if not inspect(connection).has_table(position.name, schema=database.schema):
            return {}
        return {Partition(t, p): offset for t, p, offset in connection.execute(query)}


def topics_read(database: Database, group: str) -> dict[str, str]:
    """Kafka's id of each topic that the group's positions are of. Raises StoreUnavailable."""
    query = select(topic_read.c.topic, topic_read.c.id).where(topic_read.c.consumer_group == group)
    with database.read() as connection:
        if not inspect(connection).has_table(topic_read.name, schema=database.schema):
            return {}
        return {row.topic: row.id for row in connection.execute(query)}


@contextmanager
def set_positions(
    database: Database,
    group: str,
    positions: Mapping[Partition, int],
    topic_ids: Mapping[str, str],
) -> Iterator[None]:
    """Let the group go on there, in topics of those ids, once the block has ended; nothing is set
    when it raises. The group's other positions stay.

    A consumer that holds one of these, or takes the old one up during the block, is fenced at its
    next batch: until the block ends it cannot commit any. Nor can, on SQLite, any other writer of
    the database, so keep the block short. Raises StoreUnavailable."""
    moved = database.insert(position)
    moved = moved.on_conflict_do_update(
        index_elements=list(position.primary_key), set_={"next_offset": moved.excluded.next_offset}
    )
    known = database.insert(topic_read)
    known = known.on_conflict_do_update(
        index_elements=list(topic_read.primary_key), set_={"id": known.excluded.id}
    )
    with database.write() as connection:
        connection.execute(
            moved,
            [
                {"consumer_group": group, "topic": t, "partition": p, "next_offset": offset}
                for (t, p), offset in sorted(positions.items())
            ],
        )
        connection.execute(
            known,
            [
                {"consumer_group": group, "topic": topic, "id": id_}
                for topic, id_ in sorted(topic_ids.items())
            ],
        )
        yield


def unpublished(database: Database, patience: float) -> int:
    """How many of the records that wait in the outbox now are still there `patience` seconds
    later. Those that no broker takes do not count. Raises StoreUnavailable."""
    query = select(outbox.c.id).where(outbox.c.parked.is_(None))
    deadline = time.monotonic() + patience
    with database.read() as connection:
        if not inspect(connection).has_table(outbox.name, schema=database.schema):
            return 0
        waiting = set(connection.scalars(query))
        while waiting and time.monotonic() < deadline:
            time.sleep(0.02)
            waiting &= set(connection.scalars(query))
    return len(waiting)
