"""The relay: publishes what the outbox holds, in order, and deletes what the broker acknowledged.

A crash between publishing and deleting publishes again under the same event id, which receivers
drop by their receipts. One relay per database works at a time; the others stand by.
"""

import logging
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from confluent_kafka import KafkaError as Code
from sqlalchemy import bindparam, delete, func, select, update

from shop.db.database import Database, DataVersion
from shop.db.election import Election
from shop.db.tables import outbox
from shop.kafka.errors import SendFailed, StoreUnavailable
from shop.kafka.template import KafkaTemplate, OutboundRecord

log = logging.getLogger(__name__)

BATCH = 1000  # records published before their acknowledgements are awaited
WAKE_S = 0.005  # how often another process's commit is looked for
SWEEP_S = 1.0  # the outbox is read this often, whoever forgot to wake it
STAND_BY_S = 0.5

# What the broker will never take, however often it is asked.
_HOPELESS = {
    Code.MSG_SIZE_TOO_LARGE,
    Code.INVALID_MSG,
    Code.INVALID_MSG_SIZE,
    Code.INVALID_RECORD,
    Code._INVALID_ARG,
}


class Relay:
    """One thread. `template` must be idempotent and without a send timeout; relays may share it."""

    def __init__(self, database: Database, template: KafkaTemplate) -> None:
        self._database = database
        self._template = template
        self._headers = msgspec.msgpack.Decoder(list[tuple[str, bytes]])
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"relay-{database.name}", daemon=True
        )
        self.active = False  # elected, and publishing
        database.wake_on_commit(self._woken)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 3.0) -> None:
        """Publish what is there for at most `timeout` seconds, then end. What is left stays in
        the outbox."""
        self._stopping.set()
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def waiting(self) -> tuple[int, int]:
        """How many records wait to be published, and how many are parked."""
        query = select(func.count(), func.count(outbox.c.parked)).select_from(outbox)
        with self._database.read() as connection:
            count, parked = connection.execute(query).one()
        return count - parked, parked

    def _run(self) -> None:
        election = Election(self._database, "relay")
        while not self._stopping.is_set():
            try:
                if not election.won():
                    self._stopping.wait(STAND_BY_S)
                    continue
                self.active = True
                self._work(election)
            except StoreUnavailable as error:
                log.warning("relay: %s; waiting for it", error)
                self._stopping.wait(SWEEP_S)
            except Exception:
                log.exception("relay of %s failed; starting it again", self._database.name)
                self._stopping.wait(SWEEP_S)
        self.active = False
        election.resign()

    def _work(self, election: Election) -> None:
        version = DataVersion(self._database)
        while election.won():
            published = self._publish()
            if self._stopping.is_set():
                if not published:
                    return
            elif not published:
                self._wait(version)

    def _wait(self, version: DataVersion) -> None:
        """Until somebody commits, at most SWEEP_S."""
        for _ in range(round(SWEEP_S / WAKE_S)):
            if self._woken.wait(WAKE_S) or version.changed():
                break
        self._woken.clear()

    def _publish(self) -> int:
        """Publish one batch; how many were acknowledged or parked."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(outbox).where(outbox.c.parked.is_(None)).order_by(outbox.c.id).limit(BATCH)
            ).all()
        if not rows:
            return 0
        done: list[int] = []
        failed: list[tuple[int, Any]] = []
        answered = threading.Event()

        def delivered(row_id: int, error: Code | None, _: Any) -> None:
            if error is None:
                done.append(row_id)
            else:
                failed.append((row_id, error))
            if len(done) + len(failed) == len(rows):
                answered.set()

        for row in rows:
            record = OutboundRecord(
                row.topic, row.key, row.value, self._headers.decode(row.headers)
            )
            try:
                self._template.publish(record, partial(delivered, row.id))
            except SendFailed as error:
                delivered(row.id, error.cause or error, None)
        while not answered.wait(0.2):  # librdkafka's own flush looks only every 10 ms
            if self._stopping.is_set() and self._template.broker_down:
                break
        return self._settle(done, failed)

    def _settle(self, done: Sequence[int], failed: Sequence[tuple[int, Any]]) -> int:
        hopeless = [
            {"row": row, "why": str(error)}
            for row, error in failed
            if isinstance(error, Code) and error.code() in _HOPELESS
        ]
        for problem in hopeless:
            log.error("%s: outbox row %s is parked: %s", self._database.name, *problem.values())
        if len(failed) > len(hopeless):
            log.warning(
                "%s: %d records not published, trying again: %s",
                self._database.name, len(failed) - len(hopeless), failed[-1][1],
            )  # fmt: skip
        if done or hopeless:
            # Undone by a power failure, it is published again under the same event ids.
            with self._database.write(durable=False) as connection:
                if done:
                    # By their ids, not by a range: on PostgreSQL ids become visible out of order.
                    connection.execute(
                        delete(outbox).where(outbox.c.id == bindparam("row")),
                        [{"row": row} for row in done],
                    )
                if hopeless:
                    connection.execute(
                        update(outbox)
                        .where(outbox.c.id == bindparam("row"))
                        .values(parked=bindparam("why")),
                        hopeless,
                    )
        if len(failed) > len(hopeless):
            self._stopping.wait(SWEEP_S)
        return len(done) + len(hopeless)
