"""What services have written and no broker has acknowledged yet."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from sqlalchemy import func, inspect, select

from shop.databases import Databases
from shop.db.database import Database
from shop.db.tables import outbox
from shop.kafka.browse import RawRecord
from shop.services import SERVICE_OF_GROUP
from shop.verify.report import Example, Kind, Notes

OLD_S = 10.0  # published within milliseconds, unless nobody publishes
PATIENCE_S = 7.0  # a relay leaves a topic that took nothing alone for 5 s
_LOOK_S = 0.1

_PARKED = (
    "no broker takes it as it is: raise the topic's max.message.bytes and set parked to NULL in "
    "the table outbox, or delete the row"
)
_STUCK = (
    "start the shop, whose relay publishes it; where it runs, its log says what the broker "
    "refuses, and `shop topics list` whether the topic is there"
)


def databases_of(databases: Databases) -> dict[str, Database]:
    """By service, those that are there and have tables."""
    found = {name: databases.existing(name) for name in dict.fromkeys(SERVICE_OF_GROUP.values())}
    return {name: one for name, one in found.items() if one is not None and _has_tables(one)}


def waiting_records(database: Database) -> Iterator[tuple[str, RawRecord]]:
    """What waits, parked or not, by topic; as records that have no place yet."""
    headers = msgspec.msgpack.Decoder(list[tuple[str, bytes | None]])
    with database.browse() as connection:
        rows = connection.execution_options(yield_per=500).execute(select(outbox))
        for row in rows:
            key = row.raw_key if row.key is None else row.key.encode()
            told = headers.decode(row.headers)
            yield row.topic, RawRecord(-1, -1, row.created_at, key, row.value, told)


def check_outboxes(databases: Mapping[str, Database], notes: Notes, patience: float) -> None:
    """What is old and does not move for `patience` seconds; and what is parked."""
    stuck = {name: _oldest(database) for name, database in databases.items()}
    deadline = time.monotonic() + patience
    while any(stuck.values()) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
        for name, before in stuck.items():
            now = _oldest(databases[name]) if before else {}
            stuck[name] = {topic: id_ for topic, id_ in before.items() if now.get(topic) == id_}
    for name, database in databases.items():
        _tell(name, database, stuck[name], notes)


def _oldest(database: Database) -> dict[str, int]:
    """The first row of each topic, where that one is old."""
    first = (
        select(outbox.c.topic, func.min(outbox.c.id).label("id"))
        .where(outbox.c.parked.is_(None))
        .group_by(outbox.c.topic)
        .subquery()
    )
    query = select(outbox.c.topic, outbox.c.id).join(first, outbox.c.id == first.c.id)
    with database.read() as connection:
        return {row.topic: row.id for row in connection.execute(query.where(_is_old()))}


def _tell(name: str, database: Database, stuck: Mapping[str, int], notes: Notes) -> None:
    unpublished = outbox.c.topic.in_(list(stuck)) & outbox.c.parked.is_(None) & _is_old()
    query = select(outbox.c.id, outbox.c.topic, outbox.c.parked).order_by(outbox.c.id)
    query = query.where(outbox.c.parked.is_not(None) | unpublished)
    where = f"{name} database"
    with database.browse() as connection:
        for id_, topic, parked in connection.execution_options(yield_per=500).execute(query):
            example = Example(f"outbox row {id_}", detail=f"for {topic}")
            if parked is None:
                notes.found(Kind.UNPUBLISHED, "records in the outbox", where, _STUCK, example)
            else:
                example = Example(example.id, detail=f"for {topic}: {parked}")
                notes.found(Kind.UNPUBLISHED, "parked records", where, _PARKED, example)


def _is_old() -> Any:
    return outbox.c.created_at < round((time.time() - OLD_S) * 1000)


def _has_tables(database: Database) -> bool:
    with database.read() as connection:
        return bool(inspect(connection).has_table(outbox.name, schema=database.schema))
