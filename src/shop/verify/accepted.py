"""What the API has answered for: each must be on its topic, or wait in the outbox."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from shop.db.database import Database
from shop.kafka.topic import Topic
from shop.orders.model import OrderRow
from shop.pix.model import PaymentRow
from shop.reports.model import ReportRun
from shop.topics import NEW_ORDER, PIX, SEND_MESSAGE_TO_ALL_USERS
from shop.verify.horizons import Horizons
from shop.verify.report import Example, Kind, Notes
from shop.verify.scratch import Scratch, key, name_of

_ADVICE = "send it again under its id: `shop topics send`"

_ON_NO_TOPIC = """
SELECT subject, at FROM accepted a WHERE topic = ? AND at >= ?
AND NOT EXISTS (SELECT 1 FROM record r WHERE r.topic = a.topic AND r.{by} = a.subject)
AND NOT EXISTS (SELECT 1 FROM waiting w WHERE w.topic = a.topic AND w.{by} = a.subject)
"""


@dataclass(frozen=True)
class Accepted:
    """`rows`: the names of what was accepted, and when. `by`: the column of the scratch table
    `record` that has these names."""

    service: str
    what: str
    topic: Topic[Any]
    rows: Any
    by: str


ACCEPTED: Sequence[Accepted] = (
    Accepted(
        "orders", "orders", NEW_ORDER,
        select(OrderRow.id, OrderRow.created_at).where(OrderRow.answered_with.is_not(None)),
        "subject",
    ),
    Accepted(
        "pix", "payments", PIX, select(PaymentRow.identifier, PaymentRow.created_at), "subject"
    ),
    Accepted(
        "reports", "runs of reports", SEND_MESSAGE_TO_ALL_USERS,
        select(ReportRun.id, ReportRun.requested_at), "event",
    ),
)  # fmt: skip


def read_accepted(databases: Mapping[str, Database], scratch: Scratch) -> None:
    """To be called before the outboxes and then the topics are read."""
    for kind in ACCEPTED:
        if kind.service not in databases:
            continue
        number = scratch.topic(kind.topic.name)
        with databases[kind.service].browse() as connection:
            rows = connection.execution_options(yield_per=1000).execute(kind.rows)
            for part in rows.partitions():
                scratch.insert("accepted", [(number, key(name), at) for name, at in part])


def check_accepted(scratch: Scratch, horizons: Horizons, notes: Notes) -> None:
    for kind in ACCEPTED:
        topic = kind.topic.name
        what, where = f"accepted {kind.what} that are on no topic", f"{kind.service} database"
        query = _ON_NO_TOPIC.format(by=kind.by)
        for name, at in scratch.rows(query, [scratch.topic(topic), horizons.asked]):
            if horizons.judged(at, what, where, topic):
                notes.found(Kind.LOST, what, where, _ADVICE, Example(name_of(name)))
