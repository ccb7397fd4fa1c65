"""Sending what is queued for a redrive, in the order in which it failed."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, exists, func, select, update

from shop.db.database import Database
from shop.db.outbox import write_outbox
from shop.db.steward import Steward
from shop.deadletters.destinations import Destinations
from shop.deadletters.model import LetterEventRow, LetterRow, RedriveRow, State, What, now
from shop.kafka import tracing
from shop.kafka.letter import Letter, redriven
from shop.kafka.outbound import OutboundRecord
from shop.kafka.wire import redriven_to

CHUNK = 200  # letters in one transaction
CHUNK_BYTES = 8_000_000
TICK_S = 0.05  # how often a redrive with a rate looks whether one is due
SWEEP_S = 1.0

_letters: Any = LetterRow.__table__
_events: Any = LetterEventRow.__table__
_redrives: Any = RedriveRow.__table__
_headers: Any = msgspec.msgpack.Decoder(list[tuple[str, bytes | None]])

_RUNNING = (
    select(_redrives)
    .where(_redrives.c.finished_at.is_(None))
    .order_by(_redrives.c.asked_at, _redrives.c.id)
)
_IN_ORDER = (_letters.c.topic, _letters.c.partition, _letters.c.offset, _letters.c.id)
_SIZE = func.coalesce(func.length(_letters.c.value), 0)


class RedriveSender:
    """The work of a Steward. A letter becomes redriven in the transaction that leaves its record
    in the outbox, so whatever dies, each is sent under its event id and none is left out."""

    def __init__(self, database: Database, destinations: Destinations) -> None:
        self._database = database
        self._destinations = destinations
        self._paces: dict[str, Pace] = {}

    def step(self, stopping: threading.Event) -> bool:
        """Send what is due of every redrive; whether there is more to do."""
        with self._database.read() as connection:
            running = connection.execute(_RUNNING).all()
        self._paces = {
            row.id: self._paces.get(row.id) or Pace(row.rate)
            for row in running
            if row.rate is not None
        }
        sent = sum(self._send(redrive) for redrive in running)
        if running and not sent:
            stopping.wait(TICK_S)
        return bool(running)

    def _send(self, redrive: Any) -> int:
        """How many letters were sent."""
        pace = self._paces.get(redrive.id)
        most = CHUNK if pace is None else min(CHUNK, pace.due())
        if not most:
            return 0
        ids = self._next(redrive.id, most)
        with self._database.write() as connection:
            count = self._write(connection, redrive, ids) if ids else 0
            _finish(connection, redrive.id)
        if pace is not None:
            pace.took(count)
        return count

    def _next(self, redrive_id: str, most: int) -> Sequence[str]:
        query = select(_letters.c.id, _SIZE).where(_queued_for(redrive_id)).order_by(*_IN_ORDER)
        ids: list[str] = []
        size = 0
        with self._database.read() as connection:
            for id_, length in connection.execute(query.limit(most)):
                if ids and size + length > CHUNK_BYTES:
                    break
                ids.append(id_)
                size += length
        return ids

    def _write(self, connection: Connection, redrive: Any, ids: Sequence[str]) -> int:
        """How many of them are still to be sent, and are now."""
        query = select(_letters).where(_queued_for(redrive.id), _letters.c.id.in_(ids))
        letters = connection.execute(query.order_by(*_IN_ORDER).with_for_update()).all()
        if not letters:  # discarded just now
            return 0
        records = [self._record(letter, redrive) for letter in letters]
        write_outbox(connection, records)
        sent = _letters.c.id.in_([letter.id for letter in letters])
        connection.execute(update(_letters).where(sent).values(state=State.REDRIVEN.value))
        at = now()
        connection.execute(
            _events.insert(),
            [
                {
                    "letter": letter.id,
                    "at": at,
                    "what": What.REDRIVEN.value,
                    "by": redrive.by,
                    "detail": f"to {redriven_to(record.headers) or 'all groups'} on {record.topic}",
                    "redrive": redrive.id,
                }
                for letter, record in zip(letters, records, strict=True)
            ],
        )
        return len(letters)

    def _record(self, row: Any, redrive: Any) -> OutboundRecord:
        """Only where a target is given are letters without a known topic chosen."""
        letter = Letter(row.id, row.value, row.key, _headers.decode(row.headers))
        topic = self._destinations.topic_of(row.topic, redrive.target) or row.topic
        group = self._destinations.group_of(row.consumer_group, topic, redrive.target_group)
        record = redriven(letter, topic, group)
        with tracing.send(
            topic, None, row.correlation_id or "", row.traceparent, record.headers,
            into=tracing.REDRIVEN, links=tracing.link(redrive.traceparent),
            attributes={"dead_letter.id": row.id},
        ):  # fmt: skip
            return record


class Pace:
    """So many a second: evenly, without making up for what was missed."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._due = 1.0
        self._at = time.monotonic()

    def due(self) -> int:
        """How many may go now."""
        now = time.monotonic()
        at_once = max(1.0, self._rate * 2 * TICK_S)
        self._due = min(self._due + (now - self._at) * self._rate, at_once)
        self._at = now
        return int(self._due)

    def took(self, count: int) -> None:
        self._due -= count


def _finish(connection: Connection, redrive_id: str) -> None:
    """If nothing is left of it."""
    left = exists().where(_queued_for(redrive_id))
    ended = update(_redrives).where(_redrives.c.id == redrive_id, ~left)
    connection.execute(ended.values(finished_at=now()))


def _queued_for(redrive_id: str) -> Any:
    return (_letters.c.redrive == redrive_id) & (_letters.c.state == State.QUEUED)


def redrive_steward(database: Database, destinations: Destinations) -> Steward:
    """Runs where redrives are asked for, in one process."""
    return Steward(database, "redrive", RedriveSender(database, destinations).step, every_s=SWEEP_S)
