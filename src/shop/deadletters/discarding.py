"""Discarding letters: they stay, with who did it and why, and nobody handles their records."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import select, text, update

from shop.db.database import Database
from shop.deadletters.behind import HELD, STANDS_BEHIND
from shop.deadletters.choosing import Choice
from shop.deadletters.model import LetterEventRow, LetterRow, State, What, now
from shop.http.problems import ProblemError

CHUNK = 500  # letters in one transaction

# Lets a group hold nothing back behind these letters; the next one of a key takes their place.
Release: TypeAlias = Callable[[str, Sequence[str]], None]

_letters: Any = LetterRow.__table__
_events: Any = LetterEventRow.__table__
_OPEN = (State.WAITING, State.QUEUED)
# The first that is chosen of each key stands for all of it.
_BEHIND = (
    "WITH chosen AS (SELECT * FROM letter WHERE {where}) "
    "SELECT count(DISTINCT letter.id) FROM letter JOIN ("
    'SELECT consumer_group, topic, key_name, partition, min("offset") AS "offset" FROM chosen '
    f"GROUP BY consumer_group, topic, key_name, partition) AS first ON {STANDS_BEHIND} "
    "WHERE letter.id NOT IN (SELECT id FROM chosen)"
)


class Discard(NamedTuple):
    """How many letters, and how many others are held back behind them, and stay so until they are
    redriven or discarded too."""

    letters: int
    behind: int


class Discards:
    """Thread-safe. Every method raises StoreUnavailable; done again, each does the same.

    What is held back behind a letter is released first: a crash in between leaves a letter that
    can be discarded again, and no key that nobody can release."""

    def __init__(self, database: Database, release: Release) -> None:
        self._database = database
        self._release = release

    def count(self, choice: Choice) -> Discard:
        """What `all` would do now."""
        found, behind = self._open(choice)
        return Discard(len(found), behind)

    def all(self, choice: Choice, by: str, reason: str | None) -> Discard:
        """Discard what is chosen and not settled yet."""
        found, behind = self._open(choice)
        discarded = sum(
            self._discard(found[at : at + CHUNK], by, reason) for at in range(0, len(found), CHUNK)
        )
        return Discard(discarded, behind)

    def one(self, letter_id: str, by: str, reason: str | None) -> None:
        """Raises ProblemError for a letter that is not there, or was redriven."""
        query = select(_letters.c.id, _letters.c.consumer_group, _letters.c.state)
        with self._database.read() as connection:
            letter = connection.execute(query.where(_letters.c.id == letter_id)).first()
        if letter is None:
            raise ProblemError(404, "There is no letter with this id.")
        if letter.state == State.REDRIVEN:
            raise ProblemError(409, "This letter was redriven.", kind="letter-redriven")
        self._discard([letter], by, reason)

    def _open(self, choice: Choice) -> tuple[Sequence[Any], int]:
        """Those that can be discarded, and how many others stand behind them."""
        where, values = choice.where(now(), *_OPEN)
        query = f"SELECT id, consumer_group FROM letter WHERE {where} ORDER BY id"
        with self._database.read() as connection:
            found = connection.execute(text(query), values).all()
            behind = connection.scalar(text(_BEHIND.format(where=where)), values | {"held": HELD})
        return found, behind or 0

    def _discard(self, letters: Sequence[Any], by: str, reason: str | None) -> int:
        by_group = defaultdict(list)
        for letter in letters:
            by_group[letter.consumer_group].append(letter.id)
        for group, ids in by_group.items():
            if group is not None:
                self._release(group, ids)
        chosen = _letters.c.id.in_([letter.id for letter in letters])
        states = _letters.c.state.in_([state.value for state in _OPEN])
        discarded = update(_letters).where(chosen, states).values(state=State.DISCARDED.value)
        at = now()
        with self._database.write() as connection:
            ids = list(connection.scalars(discarded.returning(_letters.c.id)))
            events = [
                {
                    "letter": id_,
                    "at": at,
                    "what": What.DISCARDED.value,
                    "by": by,
                    "detail": reason,
                }
                for id_ in ids
            ]
            if events:
                connection.execute(_events.insert(), events)
        return len(ids)
