"""The relay: publishes what the outbox holds, in order, and deletes what the broker acknowledged.

A crash between publishing and deleting publishes again under the same event id, which receivers
drop by their receipts. One relay per database works at a time; the others stand by.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from confluent_kafka import KafkaError as Code
from sqlalchemy import bindparam, delete, func, select, update

from shop.db.commits import CommitWatch
from shop.db.database import Database
from shop.db.election import Election
from shop.db.tables import outbox
from shop.db.worker import Worker
from shop.kafka.errors import SendFailed, StoreUnavailable
from shop.kafka.outbound import OutboundRecord
from shop.kafka.template import KafkaTemplate

log = logging.getLogger(__name__)

BATCH = 1000  # records published before their acknowledgements are awaited
SWEEP_S = 1.0  # the outbox is read this often, whoever forgot to wake it
STAND_BY_S = 0.5
REST_S = 5.0  # a topic that took a record neither now nor never is left alone this long

# What the broker will never take, however often it is asked.
_HOPELESS = {
    Code.MSG_SIZE_TOO_LARGE,
    Code.INVALID_MSG,
    Code.INVALID_MSG_SIZE,
    Code.INVALID_RECORD,
    Code._INVALID_ARG,
}


@dataclass
class _Published:
    """What became of a batch: ids acknowledged, and (id, why) of those that must be parked."""

    done: list[int] = field(default_factory=list)
    hopeless: list[tuple[int, str]] = field(default_factory=list)
    failed: list[tuple[str, Any]] = field(default_factory=list)  # topic and why; tried again

    @property
    def size(self) -> int:
        return len(self.done) + len(self.hopeless) + len(self.failed)


class Relay(Worker):
    """One thread; asked to stop, it publishes what is there. What is left stays in the outbox.

    `template` should be idempotent, and without a send timeout; relays may share it, and
    `commits`, by which they hear of other processes' commits. `on_failure(error)` is called when
    the template can never send again."""

    def __init__(
        self,
        database: Database,
        template: KafkaTemplate,
        on_failure: Callable[[BaseException], None] | None = None,
        commits: CommitWatch | None = None,
    ) -> None:
        super().__init__(database, f"relay-{database.name}")
        self._template = template
        self._on_failure = on_failure
        self._commits = commits or CommitWatch()
        self._headers: Any = msgspec.msgpack.Decoder(list[tuple[str, bytes | None]])
        self._unwritten: _Published | None = None  # published, but the database was away
        self._resting: dict[str, float] = {}  # topic -> until when
        self.active = False  # elected, and publishing

    def _run(self) -> None:
        election = Election(self._database, "relay")
        while not self._stopping.is_set() and self._template.failure is None:
            try:
                if not election.won():
                    self._stopping.wait(STAND_BY_S)
                    continue
                self.active = True
                self._work(election)
            except StoreUnavailable as error:
                log.debug("relay: %s; waiting for it", error)
                self._stopping.wait(SWEEP_S)
            except Exception:
                log.exception("relay of %s failed; starting it again", self._database.name)
                self._stopping.wait(SWEEP_S)
        self.active = False
        election.resign()
        if self._template.failure is not None and self._on_failure is not None:
            self._on_failure(self._template.failure)

    def _work(self, election: Election) -> None:
        with self._commits.waking(self._database, self._woken):
            while self._template.failure is None and election.won():
                self._woken.clear()  # before what is there is read
                published = self._publish()
                if self._stopping.is_set():
                    if not published:
                        return
                elif not published:
                    self._woken.wait(SWEEP_S)

    def _publish(self) -> int:
        """Publish one batch; how many were acknowledged or parked."""
        if self._unwritten is not None:  # rather than to publish the same again
            self._write(self._unwritten)
        rows = self._read()
        if not rows:
            return 0
        result = _Published()
        answered = threading.Event()

        def settled(outcomes: list[Any], outcome: Any) -> None:
            outcomes.append(outcome)
            # By what is there, not by a counter: several threads serve the callbacks.
            if result.size == len(rows):
                answered.set()

        def delivered(row: Any, error: Any, _message: Any = None) -> None:
            if error is None:
                settled(result.done, row.id)
            elif isinstance(error, Code) and error.code() in _HOPELESS:
                settled(result.hopeless, (row.id, str(error)))
            else:
                settled(result.failed, (row.topic, error))

        for row in rows:
            try:
                headers = self._headers.decode(row.headers)
                key = row.key if row.raw_key is None else row.raw_key
                record = OutboundRecord(row.topic, key, row.value, headers)
                self._template.publish(record, partial(delivered, row))
            except SendFailed as error:
                if self._template.failure is not None:
                    return 0
                delivered(row, error.cause or error)
            except Exception as error:  # a row that cannot even be read
                settled(result.hopeless, (row.id, str(error)))
        while not answered.wait(0.2):  # librdkafka's own flush looks only every 10 ms
            if self._template.failure is not None:
                return 0
            if self._stopping.is_set() and self._template.broker_down:
                break
        return self._write(result)

    def _read(self) -> Sequence[Any]:
        now = time.monotonic()
        self._resting = {topic: until for topic, until in self._resting.items() if until > now}
        query = select(outbox).where(outbox.c.parked.is_(None))
        if self._resting:
            query = query.where(outbox.c.topic.not_in(list(self._resting)))
        with self._database.read() as connection:
            return connection.execute(query.order_by(outbox.c.id).limit(BATCH)).all()

    def _write(self, result: _Published) -> int:
        """Delete what was acknowledged and park what is hopeless; how many."""
        self._unwritten = result
        if result.done or result.hopeless:
            # Undone by a power failure, it is published again under the same event ids.
            with self._database.write(durable=False) as connection:
                if result.done:
                    # By their ids, not by a range: on PostgreSQL ids become visible out of order.
                    connection.execute(
                        delete(outbox).where(outbox.c.id == bindparam("row")),
                        [{"row": row} for row in result.done],
                    )
                if result.hopeless:
                    connection.execute(
                        update(outbox)
                        .where(outbox.c.id == bindparam("row"))
                        .values(parked=bindparam("why")),
                        [{"row": row, "why": why} for row, why in result.hopeless],
                    )
        self._unwritten = None
        if self._database.metrics is not None and result.done:
            self._database.metrics.published(self._database.name, len(result.done))
        for row, why in result.hopeless:
            log.error("%s: outbox row %s is parked: %s", self._database.name, row, why)
        if result.failed:
            topics = {topic for topic, _ in result.failed}
            self._resting.update(dict.fromkeys(topics, time.monotonic() + REST_S))
            log.warning(
                "%s: %d records for %s not published, trying again in %.0f s: %s",
                self._database.name, len(result.failed), ", ".join(sorted(topics)), REST_S,
                result.failed[-1][1],
            )  # fmt: skip
        return len(result.done) + len(result.hopeless)


def outbox_size(database: Database) -> tuple[int, int]:
    """How many records wait to be published, and how many are parked. Raises StoreUnavailable."""
    query = select(func.count(), func.count(outbox.c.parked)).select_from(outbox)
    with database.read() as connection:
        count, parked = connection.execute(query).one()
    return count - parked, parked


def oldest_waiting(database: Database) -> int | None:
    """Since when the record waits that is to be published next, in milliseconds since the epoch.
    Raises StoreUnavailable."""
    query = select(outbox.c.created_at).where(outbox.c.parked.is_(None)).order_by(outbox.c.id)
    with database.read() as connection:
        return connection.scalar(query.limit(1))
