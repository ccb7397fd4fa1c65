"""A record for each user. The table of users and a cursor in it are the outbox: a chunk is
published straight from the one, and then the other is moved over it."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import CursorResult, func, select, text, update

from shop.db.database import Database
from shop.db.loop_reader import LoopReader
from shop.db.steward import Steward
from shop.kafka.errors import SendFailed
from shop.kafka.ids import derived_id
from shop.kafka.outbound import OutboundRecord, outbound
from shop.kafka.template import KafkaTemplate
from shop.kafka.wire import TRACEPARENT, Headers
from shop.topics import USER_EMAIL
from shop.users.model import FanOutRow, State, UserRow
from shop.users.targets import TARGETS

log = logging.getLogger(__name__)

CHUNK = 5000  # users; what a crash repeats at most
STOP_S = 1.0  # for acknowledgements when the process is asked to stop
LONGEST_EMAIL = 1000  # bytes
REST_S = 5.0  # after a record that was not taken

_OLDEST = (
    select(FanOutRow.__table__)
    .where(FanOutRow.state == State.RUNNING)
    .order_by(FanOutRow.asked_at, FanOutRow.id)
    .limit(1)
)
_NEXT = text("SELECT uuid, email FROM users WHERE uuid > :cursor ORDER BY uuid LIMIT :most")


class _Chunk(NamedTuple):
    """Records for the users beyond a cursor, up to the next one."""

    fan_out_id: str
    cursor: str
    next_cursor: str
    records: Sequence[OutboundRecord]


class FanOutSender:
    """The work of a Steward. A crash repeats a chunk, under the same event ids.

    Users that register while a fan-out runs get a record if their uuid lies beyond the cursor.
    `open_template`: a template is held while there is something to send. It should have no send
    timeout."""

    def __init__(
        self, database: Database, open_template: Callable[[], KafkaTemplate], chunk: int = CHUNK
    ) -> None:
        self._database = database
        self._open_template = open_template
        self._template: KafkaTemplate | None = None
        self._size = chunk
        self._ahead: _Chunk | None = None
        self._resting_until = 0.0
        self._trouble: str | None = None

    def step(self, stopping: threading.Event) -> bool:
        """Publish the next chunk of the oldest fan-out; whether there may be more to do."""
        if time.monotonic() < self._resting_until:
            return False
        with self._database.read() as connection:
            fan_out = connection.execute(_OLDEST).first()
        if fan_out is None:
            self._close_template()
            return False
        if fan_out.total is None:
            self._count(fan_out)
            return True
        chunk, self._ahead = self._ahead, None
        if chunk is None or chunk[:2] != (fan_out.id, fan_out.cursor):
            chunk = self._chunk(fan_out, fan_out.cursor)
        try:
            if not self._publish(fan_out, chunk, stopping):
                self._close_template()
                return False
        except SendFailed as error:
            self._close_template()
            self._rest(fan_out, str(error))
            return False
        self._advance(fan_out, chunk)
        return True

    def _count(self, fan_out: Any) -> None:
        total = select(func.count()).select_from(UserRow).scalar_subquery()
        row = FanOutRow.id == fan_out.id
        with self._database.write(durable=False) as connection:
            connection.execute(update(FanOutRow).where(row).values(total=total))

    def _chunk(self, fan_out: Any, cursor: str) -> _Chunk:
        with self._database.read() as connection:
            users = connection.execute(_NEXT, {"cursor": cursor, "most": self._size}).all()
        target = TARGETS[fan_out.target]
        # Passed on as it is: a span for each of a million records would tell nobody anything.
        traceparent = (fan_out.traceparent or "").encode("ascii", "replace")
        traced = [(TRACEPARENT, traceparent)] if traceparent else []
        records = [
            outbound(
                target.topic,
                uuid,
                target.event(uuid),
                correlation_id=fan_out.correlation_id,
                event_id=derived_id(fan_out.id, "batch", uuid),
                headers=[*_told(email), *traced],
            )
            for uuid, email in users
        ]
        return _Chunk(fan_out.id, cursor, users[-1].uuid if users else cursor, records)

    def _publish(self, fan_out: Any, chunk: _Chunk, stopping: threading.Event) -> bool:
        """Whether all of it is acknowledged; else the process stops. Raises SendFailed."""
        outcomes: list[Any] = []  # None or librdkafka's error, for each record
        answered = threading.Event()
        count = len(chunk.records)
        template = self._template = self._template or self._open_template()

        def delivered(error: Any, _message: Any) -> None:
            outcomes.append(error)
            # By what is there, not by a counter: several threads serve the callbacks.
            if len(outcomes) == count:
                answered.set()

        for record in chunk.records:
            template.publish(record, delivered)
        if count == self._size:  # while the broker works
            self._ahead = self._chunk(fan_out, chunk.next_cursor)
        while count and not answered.wait(0.1):
            if template.failure is not None:
                raise SendFailed(str(template.failure))
            if stopping.is_set() and not answered.wait(STOP_S):
                return False
        refusal = next((error for error in outcomes if error is not None), None)
        if refusal is not None:
            raise SendFailed(refusal.str(), refusal)
        return True

    def _advance(self, fan_out: Any, chunk: _Chunk) -> None:
        """Undone by a power failure, the chunk is published again."""
        sent = fan_out.sent + len(chunk.records)
        values = {"cursor": chunk.next_cursor, "sent": sent, "total": max(fan_out.total, sent)}
        finished = len(chunk.records) < self._size
        if finished:
            now = time.time_ns() // 1_000_000
            values |= {"total": sent, "state": State.FINISHED, "finished_at": now}
        held = (FanOutRow.id == fan_out.id, FanOutRow.cursor == fan_out.cursor)
        move = update(FanOutRow).where(*held).values(values)
        with self._database.write(durable=False) as connection:
            moved: CursorResult[Any] = connection.execute(move)
        if moved.rowcount != 1:
            log.warning("fan-out %s: another process has moved it on", fan_out.id)
            return
        if self._trouble is not None:
            log.info("fan-out %s goes on", fan_out.id)
        self._trouble = None
        if finished:
            log.info(
                "fan-out %s: a record each for %d users on %s", fan_out.id, sent, fan_out.target
            )

    def _close_template(self) -> None:
        """Also one that can never send again: the next is another."""
        if self._template is not None:
            self._template.close(0)
            self._template = None

    def _rest(self, fan_out: Any, trouble: str) -> None:
        """One line, however often the same happens again."""
        if trouble != self._trouble:
            log.error(
                "fan-out %s: %s does not take its records: %s; trying again every %.0f s",
                fan_out.id, fan_out.target, trouble, REST_S,
            )  # fmt: skip
        self._trouble = trouble
        self._resting_until = time.monotonic() + REST_S


def _told(email: str) -> Headers:
    """Without what is no address, so that no user's record can be larger than a broker takes."""
    told = email.encode()
    return [(USER_EMAIL, told)] if len(told) <= LONGEST_EMAIL else []


def fan_out_steward(database: Database, open_template: Callable[[], KafkaTemplate]) -> Steward:
    """Sends what `batch` has noted."""
    return Steward(database, "fan-out", FanOutSender(database, open_template).step, every_s=1.0)


def unfinished(database: Database) -> tuple[int, int | None]:
    """How many fan-outs still run, and when the oldest of them was asked for, in milliseconds since
    the epoch. Raises StoreUnavailable."""
    running = FanOutRow.state == State.RUNNING
    with database.read() as connection:
        query = select(func.count(), func.min(FanOutRow.asked_at)).where(running)
        count, since = connection.execute(query).one()
    return count, since


class Progress(msgspec.Struct, frozen=True):
    """How far a fan-out is. `total` is None until its first record is sent; `refused`: why it was
    not done at all."""

    total: int | None
    sent: int
    finished: bool
    refused: str | None = None


class FanOuts:
    """Belongs to one event loop."""

    def __init__(self, database: Database) -> None:
        self._reader = LoopReader(database)
        self.close = self._reader.close

    async def progress(self, fan_out_id: str) -> Progress | None:
        """Of the fan-out that the event of this id asked for. None while `batch` has not noted
        it. Raises StoreUnavailable."""
        if "\0" in fan_out_id:  # PostgreSQL takes none
            return None
        rows = await self._reader.by_key(
            "SELECT total, sent, state, refused FROM fan_out WHERE id = :id", {"id": fan_out_id}
        )
        if not rows:
            return None
        total, sent, state, refused = rows[0]
        return Progress(total, sent, state != State.RUNNING, refused)
