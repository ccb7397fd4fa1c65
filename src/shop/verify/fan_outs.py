"""A fan-out sends a record to each user: as many as it has counted, and to all that were there."""

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import select

from shop.db.database import Database
from shop.kafka.correlation import MAX_LENGTH
from shop.kafka.ids import derived_id
from shop.log.way import sends_of
from shop.users.model import FanOutRow, State, UserRow
from shop.verify.horizons import Horizons
from shop.verify.report import Example, Kind, Notes
from shop.verify.scratch import Scratch, key

_ADVICE = "ask for it again: `shop reports generate`"
_WHERE = "users database"
_SURE_MS = 60_000  # a user's row may be committed a little after the time that is in it
_ROOM = 200  # characters that a correlation id still gets on its way; a cut one tells no cause


class FanOut(NamedTuple):
    id: str
    target: str
    correlation_id: str
    asked_at: int
    state: str
    sent: int


def read_fan_outs(users: Database | None) -> list[FanOut]:
    """As they are now; to be called before their topics are read."""
    if users is None:
        return []
    row = FanOutRow
    query = select(row.id, row.target, row.correlation_id, row.asked_at, row.state, row.sent)
    with users.read() as connection:
        return [FanOut(*found) for found in connection.execute(query)]


def check_fan_outs(
    users: Database | None,
    fan_outs: list[FanOut],
    scratch: Scratch,
    horizons: Horizons,
    notes: Notes,
) -> None:
    for fan_out in fan_outs:
        if users is None or fan_out.target not in horizons.topics:
            continue
        if not horizons.judged(fan_out.asked_at, "fan-outs", _WHERE, fan_out.target):
            continue
        _check_count(fan_out, scratch, notes)
        if fan_out.state == State.FINISHED:
            _check_users(users, fan_out, scratch, notes)


def _check_count(fan_out: FanOut, scratch: Scratch, notes: Notes) -> None:
    if len(fan_out.correlation_id) > MAX_LENGTH - _ROOM:
        return
    cause = (sends_of(fan_out.correlation_id) or [fan_out.correlation_id])[0]
    (count,) = scratch.one(
        "SELECT count(*) FROM record WHERE topic = ? AND subject = ?",
        [scratch.topic(fan_out.target), key(cause)],
    )
    if count < fan_out.sent:
        example = Example(fan_out.id, detail=f"{count} of {fan_out.sent} are on {fan_out.target}")
        what, lost = "records that fan-outs have sent", fan_out.sent - count
        notes.found(Kind.LOST, what, _WHERE, _ADVICE, example, lost)


def _check_users(users: Database, fan_out: FanOut, scratch: Scratch, notes: Notes) -> None:
    number = scratch.topic(fan_out.target)
    for uuid in _users_before(users, fan_out.asked_at - _SURE_MS):
        event_id = derived_id(fan_out.id, "batch", uuid)
        event = [number, key(event_id)]
        if scratch.one("SELECT 1 FROM record WHERE topic = ? AND event = ?", event) is None:
            example = Example(uuid, event_id=event_id, detail=f"fan-out {fan_out.id}")
            what = "users left out by a fan-out"
            notes.found(Kind.LOST, what, _WHERE, _ADVICE, example)


def _users_before(users: Database, moment: int) -> Iterator[str]:
    query = select(UserRow.uuid).where(UserRow.created_at < moment)
    with users.browse() as connection:
        yield from connection.execution_options(yield_per=1000).scalars(query)
