"""Dead letters: records that a group gave up on, in sight of everybody, so none is lost."""

from collections import Counter
from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from shop.db.database import Database
from shop.deadletters.destinations import Destinations
from shop.deadletters.model import LetterEventRow, LetterRow, RedriveRow, What
from shop.kafka.browse import RawRecord
from shop.kafka.letter import DeadLetterCodec, Letter, opened
from shop.kafka.wire import Message, received_ids
from shop.topics import DEADLETTER
from shop.verify.report import Notes
from shop.verify.scratch import Scratch

UNKNOWN = "of another program"

_codec = DeadLetterCodec()
_ours = Destinations({})  # topics are all that is asked about

# Each failure: on the topic that the letter tells, or where a redrive has sent it.
_event, _sent = LetterEventRow, aliased(LetterEventRow)
_FAILED = (
    select(_event.by, LetterRow.topic, RedriveRow.target, _event.partition, _event.offset)
    .join(LetterRow, LetterRow.id == _event.letter)
    .outerjoin(_sent, (_sent.letter == _event.letter) & (_sent.what == What.REDRIVEN.value))
    .outerjoin(RedriveRow, RedriveRow.id == _sent.redrive)
    .where(_event.what == What.FAILED.value, _event.by.is_not(None))
)


class Letters:
    """By where the failed record lies and the group that failed: a record that was redriven and
    failed again lies elsewhere and has another letter for that."""

    def __init__(self, scratch: Scratch, notes: Notes) -> None:
        self._scratch = scratch
        self._notes = notes
        self._counts: Counter[str] = Counter()
        self._groups: set[str] = set()

    def add(self, records: Iterable[RawRecord]) -> None:
        """Of the dead-letter topic, or on the way to it."""
        for record in records:
            letter = _letter(record)
            group = letter.group or UNKNOWN
            self._groups.add(group)
            row = (group, letter.topic, letter.partition, letter.offset)
            if None in row or self._scratch.insert("letter", [row]):
                self._counts[group] += 1

    def add_kept(self, database: Database | None) -> None:
        """Of the service that keeps them: the topic deletes what is old. To be called after the
        topic was read."""
        if database is None:
            return
        with database.browse() as connection:
            rows = connection.execution_options(yield_per=1000).execute(_FAILED)
            for part in rows.partitions():
                failed = [
                    (group, _ours.topic_of(told, target), number, offset)
                    for group, told, target, number, offset in part
                ]
                self._scratch.insert("letter", [row for row in failed if None not in row])
                self._groups.update(group for group, *_ in failed if group is not None)

    def tell(self, database: Database | None) -> None:
        """How many there are, and what became of them. `database`: of the service that keeps
        them."""
        if database is None:
            for group, count in self._counts.items():
                self._notes.remark("dead letters", f"group {group}", count)
            return
        row = LetterRow
        query = select(row.consumer_group, row.state, func.count())
        with database.read() as connection:
            rows = connection.execute(query.group_by(row.consumer_group, row.state))
            for name, state, count in rows:
                self._notes.remark(f"dead letters {state}", f"group {name or UNKNOWN}", count)

    def has(self, group: str, topic: str, record: RawRecord) -> bool:
        if group not in self._groups:
            return False
        place = (group, topic, record.partition, record.offset)
        found = self._scratch.one(
            "SELECT 1 FROM letter WHERE consumer_group = ? AND topic = ? AND partition = ? "
            "AND offset = ?",
            place,
        )
        return found is not None


def _letter(record: RawRecord) -> Letter:
    headers = [(name, value or b"") for name, value in record.headers]
    value, named = _codec.decode(record.value)
    topic, number, offset = DEADLETTER.name, record.partition, record.offset
    event_id, correlation_id, trace, _ = received_ids(headers, named, topic, number, offset)
    ids = (event_id, correlation_id, trace, headers)
    return opened(Message(value, None, topic, number, offset, record.timestamp, *ids, record.key))
