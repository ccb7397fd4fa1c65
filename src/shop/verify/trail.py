"""The audit trail: each record that the group `log` has gone past, as far back as it is kept."""

from collections.abc import Iterator
from contextlib import closing

from sqlalchemy import and_, false, func, or_, select

from shop.db.database import Database
from shop.kafka.browse import TopicReader
from shop.kafka.connection import Connection
from shop.kafka.store import Partition
from shop.log.model import AuditRecord
from shop.verify.groups import Group
from shop.verify.report import Example, Kind, Notes, place

_WHERE = "log database"
_ADVICE = "stop the group log and set its position back to the first of them"
_TWICE = "harmless for timelines, but the position of the group log was moved back by somebody"


def check_trail(connection: Connection, log: Group, notes: Notes) -> None:
    if log.database is None:
        return
    kept = [
        and_(AuditRecord.topic == t, AuditRecord.partition == n, AuditRecord.offset < at)
        for (t, n), at in log.positions.items()
    ]
    query = select(
        AuditRecord.topic, AuditRecord.partition, func.min(AuditRecord.offset), func.count(),
        func.count(AuditRecord.offset.distinct()),
    )  # fmt: skip
    query = query.where(or_(false(), *kept)).group_by(AuditRecord.topic, AuditRecord.partition)
    with log.database.read() as database:
        counted = database.execute(query).all()
    for topic, number, first, rows, offsets in counted:
        partition = Partition(topic, number)
        if rows > offsets:
            example = Example(record=f"{topic}[{number}]")
            what = "records in the audit trail"
            notes.found(Kind.DUPLICATED, what, _WHERE, _TWICE, example, rows - offsets)
        if offsets < log.positions[partition] - first:
            _find_gaps(connection, log.database, partition, log.positions[partition], notes)


def _find_gaps(
    connection: Connection, log: Database, partition: Partition, upto: int, notes: Notes
) -> None:
    """Offsets may be missing in the log too, where transactions ended."""
    topic, number = partition
    kept = _kept(log, partition, upto)
    at = next(kept, upto)
    with closing(TopicReader(connection, topic, [number])) as reader:
        start = max(at, reader.beginning[number])
        for record in reader.read({number: start}):
            if record.offset >= upto:
                return
            while at < record.offset:
                at = next(kept, upto)
            if at > record.offset:
                example = Example(record=place(topic, number, record.offset))
                what = "records missing in the audit trail"
                notes.found(Kind.LOST, what, _WHERE, _ADVICE, example)


def _kept(log: Database, partition: Partition, upto: int) -> Iterator[int]:
    query = (
        select(AuditRecord.offset)
        .where(
            AuditRecord.topic == partition.topic,
            AuditRecord.partition == partition.number,
            AuditRecord.offset < upto,
        )
        .order_by(AuditRecord.offset)
    )
    with log.browse() as connection:
        yield from connection.execution_options(yield_per=1000).scalars(query)
