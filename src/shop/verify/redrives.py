"""What was redriven: each record must be on its topic again, or wait in the outbox."""

from collections.abc import Iterable

from sqlalchemy import select

from shop.db.database import Database
from shop.deadletters.destinations import Destinations
from shop.deadletters.model import LetterEventRow, LetterRow, RedriveRow, What
from shop.kafka.browse import RawRecord
from shop.kafka.letter import REDRIVE_OF
from shop.verify.horizons import Horizons
from shop.verify.report import Example, Kind, Notes
from shop.verify.scratch import Scratch, key, name_of

_ours = Destinations({})  # topics are all that is asked about
_WHAT, _WHERE = "records of redriven letters", "deadletters database"
_ADVICE = "redrive it again: `shop deadletters redrive ID --again`"

# The newest redrives of a letter, as many as it has records too few.
_MISSING = """
SELECT letter, at FROM (
    SELECT letter, at, count(*) OVER (PARTITION BY letter) AS times,
        row_number() OVER (PARTITION BY letter ORDER BY at DESC) AS back
    FROM redrive WHERE topic = ? AND at >= ?) r
WHERE back <= times - (SELECT count(*) FROM sent_again s WHERE s.topic = ? AND s.letter = r.letter)
"""


def read_redrives(database: Database | None, scratch: Scratch) -> None:
    """To be called before the outboxes and then the topics are read."""
    if database is None:
        return
    event, letter, redrive = LetterEventRow, LetterRow, RedriveRow
    query = (
        select(event.letter, event.at, letter.topic, redrive.target)
        .join(letter, letter.id == event.letter)
        .join(redrive, redrive.id == event.redrive)
        .where(event.what == What.REDRIVEN.value)
    )
    with database.browse() as connection:
        rows = connection.execution_options(yield_per=1000).execute(query)
        for part in rows.partitions():
            found = [(id_, at, _ours.topic_of(told, target)) for id_, at, told, target in part]
            scratch.insert(
                "redrive", [(key(id_), scratch.topic(to), at) for id_, at, to in found if to]
            )


def note_sent_again(scratch: Scratch, topic: str, records: Iterable[RawRecord]) -> None:
    """Those of the records, on a topic or in an outbox, that were redriven."""
    number = scratch.topic(topic)
    of = [value for r in records for name, value in r.headers if name == REDRIVE_OF and value]
    scratch.insert("sent_again", [(number, key(id_.decode("utf-8", "replace"))) for id_ in of])


def check_redrives(scratch: Scratch, horizons: Horizons, notes: Notes) -> None:
    for topic in horizons.topics:
        number = scratch.topic(topic)
        for letter, at in scratch.rows(_MISSING, [number, horizons.asked, number]):
            if horizons.judged(at, _WHAT, _WHERE, topic):
                example = Example(name_of(letter), detail=f"for {topic}")
                notes.found(Kind.LOST, _WHAT, _WHERE, _ADVICE, example)
