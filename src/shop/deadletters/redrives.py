"""Taking a redrive in: its letters are chosen and queued in one transaction."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import IntegrityError

from shop.db.database import Database
from shop.db.loop_reader import LoopReader
from shop.deadletters.behind import HELD, STANDS_BEHIND
from shop.deadletters.choosing import Choice
from shop.deadletters.destinations import ALL_GROUPS, Destinations
from shop.deadletters.model import RedriveRow, State, now
from shop.http.idempotency import KeyReused
from shop.http.moment import moment
from shop.http.problems import ProblemError
from shop.kafka import tracing
from shop.kafka.ids import derived_id, time_ordered_id

_redrives: Any = RedriveRow.__table__

_QUEUE = "UPDATE letter SET state = 'queued', redrive = :redrive WHERE "
# They failed only because they stand behind one that is chosen.
_QUEUE_BEHIND = text(
    f"{_QUEUE} EXISTS (SELECT 1 FROM letter AS first WHERE {STANDS_BEHIND} "
    "AND first.redrive = :redrive AND first.state = 'queued')"
)
_TOLD = text(
    "SELECT topic, consumer_group, count(*) AS letters FROM letter "
    "WHERE redrive = :redrive AND state = 'queued' GROUP BY topic, consumer_group"
)
_PROGRESS = (
    "SELECT asked_at, finished_at, by, rate, target, target_group, plan, "
    "(SELECT count(*) FROM letter WHERE redrive = :id AND state = 'queued') AS queued, "
    "(SELECT count(*) FROM letter_event WHERE redrive = :id) AS redriven "
    "FROM redrive WHERE id = :id"
)


class Redrive(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants redriven. `rate`: letters per second; `to`: the topic of letters that
    tell none of the shop's; `to_group`: the group of letters that tell one that does not read the
    topic, or ALL_GROUPS; `again`: also letters that are redriven or discarded."""

    by: str
    choice: Choice
    rate: float | None = None
    to: str | None = None
    to_group: str | None = None
    again: bool = False


class Destination(msgspec.Struct, frozen=True, gc=False):
    """Where how many letters go. No group: to all that read the topic."""

    topic: str
    group: str | None
    letters: int


class Plan(msgspec.Struct, frozen=True, gc=False):
    """What is chosen. `letters` are to be redriven, of which `behind` were not asked for: they
    are held back behind one that was, by their key. `without_topic` were asked for and are left
    out: they tell no topic of the shop's, and need `to`."""

    letters: int
    behind: int
    without_topic: int
    destinations: Sequence[Destination]


class Phase(StrEnum):
    PLANNED = "planned"  # a dry run
    RUNNING = "running"
    FINISHED = "finished"


class RedriveView(msgspec.Struct, frozen=True, rename="camel", gc=False, kw_only=True):
    """A redrive, what it chose and how far it is. Of `letters`, `behind` were not asked for: they
    are held back behind one that was. `withoutTopic` are left out: they tell no topic of the
    shop's, and need `to`. A destination without a group is all groups of its topic. A dry run
    has no id."""

    id: str | None = None
    state: Phase
    by: str
    rate: float | None
    to: str | None
    to_group: str | None
    letters: int
    behind: int
    without_topic: int
    destinations: Sequence[Destination]
    queued: int
    redriven: int = 0
    asked_at: datetime | None = None
    finished_at: datetime | None = None


class Redrives:
    """Takes them in, and tells how far they are. Thread-safe but for `progress`, which belongs to
    one event loop. Every method raises StoreUnavailable."""

    def __init__(self, database: Database, destinations: Destinations) -> None:
        self.destinations = destinations
        self._database = database
        self._reader = LoopReader(database)
        self.close = self._reader.close

    def dry_run(self, redrive: Redrive) -> RedriveView:
        """What `take` would do now. Raises ProblemError as it does."""
        with self._database.write(durable=False) as connection:
            plan = self._queue(connection, "dry run", redrive, now())
            connection.rollback()
        return _view(redrive, plan)

    def take(self, redrive: Redrive, key: str | None) -> RedriveView:
        """Queue the letters; the same again under an idempotency key gives the first answer.

        Raises KeyReused, and ProblemError for letters that would go to a group that does not read
        their topic."""
        id_ = time_ordered_id() if key is None else derived_id("", "redrive", key)
        try:
            return self._take(redrive, id_)
        except IntegrityError:  # PostgreSQL: another request took its key this moment
            return self._take(redrive, id_)

    async def progress(self, id_: str) -> RedriveView | None:
        if "\0" in id_:  # PostgreSQL takes none
            return None
        rows = await self._reader.list(_PROGRESS, {"id": id_})
        if not rows:
            return None
        (row,) = rows
        plan = _plan(row.plan)
        ended = row.finished_at
        return RedriveView(
            id=id_,
            state=Phase.RUNNING if ended is None else Phase.FINISHED,
            by=row.by,
            rate=row.rate,
            to=row.target,
            to_group=row.target_group,
            **msgspec.structs.asdict(plan),
            queued=row.queued,
            redriven=row.redriven,
            asked_at=moment(row.asked_at),
            finished_at=None if ended is None else moment(ended),
        )

    def _take(self, redrive: Redrive, id_: str) -> RedriveView:
        asked = msgspec.json.encode(redrive)
        at = now()
        with self._database.write() as connection:
            known = connection.execute(select(_redrives).where(_redrives.c.id == id_)).first()
            if known is None:
                plan = self._queue(connection, id_, redrive, at)
                row = {
                    "id": id_,
                    "asked": asked,
                    "plan": msgspec.json.encode(plan),
                    "by": redrive.by,
                    "rate": redrive.rate,
                    "target": redrive.to,
                    "target_group": redrive.to_group,
                    "traceparent": tracing.current_traceparent(),
                    "asked_at": at,
                    "finished_at": None if plan.letters else at,
                }
                connection.execute(_redrives.insert(), row)
                return _view(redrive, plan, id_, at)
        if known.asked != asked:
            raise KeyReused
        return _view(redrive, _plan(known.plan), id_, known.asked_at)

    def _queue(self, connection: Connection, id_: str, redrive: Redrive, at: int) -> Plan:
        ended = (State.REDRIVEN, State.DISCARDED) if redrive.again else ()
        where, values = redrive.choice.where(at, State.WAITING, *ended)
        without_topic = 0
        if redrive.to is None:
            names = {f"known{number}": name for number, name in enumerate(self.destinations.topics)}
            known = f"coalesce(letter.topic, '') IN ({', '.join(f':{name}' for name in names)})"
            values |= names
            nowhere = f"SELECT count(*) FROM letter WHERE {where} AND NOT {known}"
            without_topic = connection.scalar(text(nowhere), values) or 0
            where += f" AND {known}"
        named = {"redrive": id_}
        asked_for = connection.execute(text(_QUEUE + where), values | named).rowcount
        behind = connection.execute(_QUEUE_BEHIND, named | {"held": HELD}).rowcount
        found = connection.execute(_TOLD, named).all()
        places = self._places(found, redrive)
        for place in places:
            self._require_reader(place)
        return Plan(asked_for + behind, behind, without_topic, places)

    def _require_reader(self, place: Destination) -> None:
        """Each group passes over what is for another: for one that does not read, all would."""
        topic, group = place.topic, place.group
        readers = self.destinations.readers(topic)
        if group is None or group in readers:
            return
        known = group in self.destinations.read_by
        why = f"Group {group} does not read {topic}" if known else f"There is no group {group}"
        raise ProblemError(
            422,
            f"{why}, so nobody would handle the letters; choose others, or say with toGroup "
            f"(--to-group) who is to: {', '.join(readers)} or {ALL_GROUPS}.",
            kind="no-reader",
        )

    def _places(self, told: Sequence[Any], redrive: Redrive) -> list[Destination]:
        letters: Counter[tuple[str, str | None]] = Counter()
        for row in told:
            # It has one: others are not chosen.
            topic = self.destinations.topic_of(row.topic, redrive.to) or ""
            group = self.destinations.group_of(row.consumer_group, topic, redrive.to_group)
            letters[topic, group] += row.letters
        ordered = sorted(letters.items(), key=lambda item: (item[0][0], item[0][1] or ""))
        return [Destination(topic, group, count) for (topic, group), count in ordered]


def _plan(stored: bytes) -> Plan:
    return msgspec.json.decode(stored, type=Plan)


def _view(
    redrive: Redrive, plan: Plan, id_: str | None = None, asked_at: int | None = None
) -> RedriveView:
    """Of one that has not begun."""
    at = None if asked_at is None else moment(asked_at)
    over = at if not plan.letters else None
    running = Phase.FINISHED if over else Phase.RUNNING
    return RedriveView(
        id=id_,
        state=Phase.PLANNED if id_ is None else running,
        by=redrive.by,
        rate=redrive.rate,
        to=redrive.to,
        to_group=redrive.to_group,
        **msgspec.structs.asdict(plan),
        queued=plan.letters,
        asked_at=at,
        finished_at=over,
    )
