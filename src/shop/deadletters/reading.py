"""Reading letters and redrives."""

import base64
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import func, select

from shop.db.database import Database
from shop.db.loop_reader import LoopReader
from shop.deadletters.choosing import Choice
from shop.deadletters.model import LetterRow, State, What, now
from shop.http.moment import moment
from shop.kafka.wire import Headers

MOST_EVENTS = 1000  # of a letter's history; the newest

_COLUMNS = (
    'id, state, topic, partition, "offset", consumer_group, key, exception, message, attempts, '
    "failures, first_at, last_at, letter_partition, letter_offset"
)
_MORE = ", timestamp, event_id, correlation_id, stacktrace, headers, value"
_EVENTS = (
    'SELECT at, what, by, detail, redrive, partition, "offset", exception FROM letter_event '
    "WHERE letter = :id ORDER BY id DESC LIMIT :most"
)

_headers: Any = msgspec.msgpack.Decoder(list[tuple[str, bytes | None]])

Shown = Callable[[bytes | None], str]


class Base64(msgspec.Struct, frozen=True, gc=False):
    """Bytes that are no text."""

    base64: str


class _Letter(msgspec.Struct, frozen=True, rename="camel", gc=False, kw_only=True):
    """What a list and a detail both tell."""

    id: str
    state: State
    topic: str | None
    partition: int | None
    offset: int | None
    group: str | None
    exception: str | None
    message: str | None
    attempts: int | None
    failures: int
    first_at: datetime
    last_at: datetime
    letter_partition: int
    letter_offset: int


class LetterView(_Letter, frozen=True, gc=False, kw_only=True):
    """A letter in a list. `topic`, `partition` and `offset` are where its record failed first,
    `letterPartition` and `letterOffset` where the letter lies. The key is shortened."""

    key: str


class HeaderView(msgspec.Struct, frozen=True, gc=False):
    name: str
    value: str | Base64 | None


class EventView(msgspec.Struct, frozen=True, gc=False):
    """What happened to a letter: it failed in a group at a place, or was settled by somebody."""

    at: datetime
    what: What
    by: str | None
    detail: str | None
    redrive: str | None
    partition: int | None
    offset: int | None
    exception: str | None


class LetterDetail(_Letter, frozen=True, gc=False, kw_only=True):
    """A letter with its record as it was, and what happened to it, the oldest first."""

    timestamp: datetime | None
    event_id: str | None
    correlation_id: str | None
    stacktrace: str | None
    key: str | Base64 | None
    value: str | Base64 | None
    headers: Sequence[HeaderView]
    history: Sequence[EventView]


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Of a letter in the list, the newest failure first: where the next page goes on."""

    last_at: int
    id: str

    def __post_init__(self) -> None:
        if "\0" in self.id or not 0 <= self.last_at < 2**63:
            raise ValueError("no such position")


class LetterReader:
    """Belongs to one event loop. Every method raises StoreUnavailable. `shown`: how a list shows
    keys."""

    def __init__(self, database: Database, shown: Shown) -> None:
        self._reader = LoopReader(database)
        self._shown = shown
        self.close = self._reader.close

    async def get(self, letter_id: str) -> LetterDetail | None:
        if "\0" in letter_id:  # PostgreSQL takes none
            return None
        query = f"SELECT {_COLUMNS}{_MORE} FROM letter WHERE id = :id"
        rows = await self._reader.list(query, {"id": letter_id})
        if not rows:
            return None
        events = await self._reader.list(_EVENTS, {"id": letter_id, "most": MOST_EVENTS})
        return _detail(rows[0], [_event(event) for event in reversed(events)])

    async def newest(
        self, choice: Choice, state: State | None, limit: int, after: Position | None
    ) -> tuple[list[LetterView], Position | None]:
        """A page of the list, the newest failure first, and where the next one begins if there is
        one."""
        where, values = choice.where(now(), *([state] if state else []))
        if after is not None:
            where += " AND (last_at, id) < (:last_at, :after)"
            values |= {"last_at": after.last_at, "after": after.id}
        query = (
            f"SELECT {_COLUMNS} FROM letter WHERE {where} "
            "ORDER BY last_at DESC, id DESC LIMIT :most"
        )
        rows = await self._reader.list(query, values | {"most": limit + 1})
        page = rows[:limit]
        more = Position(page[-1].last_at, page[-1].id) if len(rows) > limit else None
        return [LetterView(**_letter(row), key=self._shown(row.key)) for row in page], more


def _letter(row: Any) -> dict[str, Any]:
    """What lists and details have."""
    return {
        "id": row.id,
        "state": State(row.state),
        "topic": row.topic,
        "partition": row.partition,
        "offset": row.offset,
        "group": row.consumer_group,
        "exception": row.exception,
        "message": row.message,
        "attempts": row.attempts,
        "failures": row.failures,
        "first_at": moment(row.first_at),
        "last_at": moment(row.last_at),
        "letter_partition": row.letter_partition,
        "letter_offset": row.letter_offset,
    }


def _detail(row: Any, history: Sequence[EventView]) -> LetterDetail:
    headers: Headers = _headers.decode(row.headers)
    return LetterDetail(
        **_letter(row),
        timestamp=None if (row.timestamp or -1) < 0 else moment(row.timestamp),
        event_id=row.event_id,
        correlation_id=row.correlation_id,
        stacktrace=row.stacktrace,
        key=_text(row.key),
        value=_text(row.value),
        headers=[HeaderView(name, _text(value)) for name, value in headers],
        history=history,
    )


def _event(row: Any) -> EventView:
    return EventView(
        moment(row.at),
        What(row.what),
        row.by,
        row.detail,
        row.redrive,
        row.partition,
        row.offset,
        row.exception,
    )


def _text(data: bytes | None) -> str | Base64 | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return Base64(base64.b64encode(data).decode())


def waiting_by_group(database: Database) -> dict[str | None, int]:
    """How many letters wait, by the group that could not handle them; None where nobody told.
    Raises StoreUnavailable."""
    group = LetterRow.consumer_group
    waiting = select(group, func.count()).where(LetterRow.state == State.WAITING).group_by(group)
    with database.read() as connection:
        return {row[0]: row[1] for row in connection.execute(waiting)}
