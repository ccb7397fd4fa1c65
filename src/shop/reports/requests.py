"""A request for a report of every user, and the transaction that takes a group of them."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from shop.db.database import Database
from shop.db.outbox import write_outbox
from shop.http.desk import Desk
from shop.kafka.ids import derived_id, time_ordered_id
from shop.kafka.outbound import OutboundRecord, outbound
from shop.reports.model import ReportRun
from shop.topics import SEND_MESSAGE_TO_ALL_USERS, USER_GENERATE_READING_REPORT

TITLE = "ReportController"  # in the correlation id, with the run's id: reports find their run by it

_runs: Any = ReportRun.__table__


class Run(msgspec.Struct, frozen=True, gc=False):
    """A run as it was first asked for. `requested_at`: milliseconds since the epoch."""

    id: str
    correlation_id: str
    requested_at: int


class RunRequest(msgspec.Struct, frozen=True, gc=False):
    """A run to be taken, its record encoded. One under an idempotency key is `repeatable`: its id
    is made from the key."""

    run: Run
    record: OutboundRecord
    repeatable: bool

    @property
    def names(self) -> Iterable[str]:
        return [self.run.id] if self.repeatable else ()


def id_of_run(key: str | None) -> str:
    """Of a new run, or of the one that this idempotency key stands for."""
    return time_ordered_id() if key is None else derived_id("", TITLE, key)


def run_request(
    id_: str, *, correlation_id: str, repeatable: bool, traceparent: str | None = None
) -> RunRequest:
    """A run to be taken; to be called within the request's span, which sends it."""
    record = outbound(
        SEND_MESSAGE_TO_ALL_USERS,
        None,
        USER_GENERATE_READING_REPORT.name,
        correlation_id=correlation_id,
        event_id=id_,
        traceparent=traceparent,
    )
    run = Run(id_, correlation_id, time.time_ns() // 1_000_000)
    return RunRequest(run, record, repeatable)


class RunDesk(Desk[RunRequest, Run]):
    """Takes runs in, or gives the one that is there: the run and its event are committed as one."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, take)


def take(connection: Connection, requests: Sequence[RunRequest]) -> Sequence[Run]:
    """Executed by the group commit, in its transaction."""
    there = _known(connection, [request.run.id for request in requests if request.repeatable])
    new: list[RunRequest] = []
    for request in requests:
        if request.run.id not in there:
            there[request.run.id] = request.run
            new.append(request)
    if new:
        rows = [msgspec.structs.asdict(request.run) | {"written": 0} for request in new]
        connection.execute(_runs.insert(), sorted(rows, key=lambda row: row["id"]))  # no deadlocks
        write_outbox(connection, [request.record for request in new])
    return [there[request.run.id] for request in requests]


def _known(connection: Connection, ids: Sequence[str]) -> dict[str, Run]:
    if not ids:
        return {}
    query = select(_runs.c.id, _runs.c.correlation_id, _runs.c.requested_at)
    rows = connection.execute(query.where(_runs.c.id.in_(ids)))
    return {row.id: Run(*row) for row in rows}
