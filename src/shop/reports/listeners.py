import re
import time
from collections.abc import Iterator
from decimal import Decimal

from sqlalchemy import select, text

from shop.db.database import Database
from shop.db.work import Work
from shop.events import Order, User
from shop.http.moment import moment
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.listener import listener
from shop.kafka.wire import Message
from shop.reports.content import Line, content_of
from shop.reports.files import ReportFiles, file_name
from shop.reports.model import CustomerOrder, Decision, Report, ReportRun
from shop.reports.page import as_page
from shop.reports.requests import TITLE
from shop.reports.text import as_text
from shop.topics import (
    NEW_ORDER,
    ORDER_APPROVED,
    ORDER_REJECTED,
    USER_EMAIL,
    USER_GENERATE_READING_REPORT,
    order_identity,
)

_DECISION = {ORDER_APPROVED.name: Decision.APPROVED, ORDER_REJECTED.name: Decision.REJECTED}
_RUN = re.compile(rf"{TITLE}\(([0-9a-f-]{{36}})\)")

_ORDERS = text(
    "SELECT order_id, at, amount, decision FROM customer_order WHERE email = :email "
    "ORDER BY at, order_id"
)


MOST_TOLD = 20_000  # more than all consumers of a process hold in their batches


class CustomerOrders:
    """Keeps the orders that reports tell of. Decision and order may come in either sequence."""

    @listener(NEW_ORDER, group="reports-orders", once=order_identity)
    def ordered(self, message: Message[Order], work: Work, ack: Acknowledgment) -> None:
        self._put(message, work, Decision.UNDECIDED, update="at")
        ack.acknowledge()

    @listener(ORDER_APPROVED, ORDER_REJECTED, group="reports-orders", once=order_identity)
    def decided(self, message: Message[Order], work: Work, ack: Acknowledgment) -> None:
        self._put(message, work, _DECISION[message.topic], update="decision")
        ack.acknowledge()

    def _put(self, message: Message[Order], work: Work, decision: Decision, update: str) -> None:
        order = message.event.identified(message.correlation_id)
        work.put(
            CustomerOrder,
            update=(update,),
            order_id=order.order_id,
            email=order.email,
            amount=order.amount,
            decision=decision,
            at=message.timestamp if message.timestamp > 0 else _now(),
        )


class Reports:
    """Writes a report for each user it is asked for, also for one it knows nothing of."""

    def __init__(self, database: Database, files: ReportFiles) -> None:
        self._database = database
        self._files = files
        self._told: dict[str, str] = {}  # e-mails by names of files, of the latest records

    @listener(
        USER_GENERATE_READING_REPORT,
        group="reports",
        concurrency=5,
        external=True,
        repeatable=True,
    )
    def write(self, message: Message[User], work: Work, ack: Acknowledgment) -> None:
        uuid = message.event.uuid
        name = file_name(uuid)
        email = self._email_of(name, message)
        now = _now()
        content = content_of(uuid, email, moment(now), self._orders(email))
        self._files.write(name, {".txt": as_text(content), ".html": as_page(content)})
        run_id = run_of(message.correlation_id)
        work.put(
            Report,
            update=("email", "run_id", "orders", "written_at"),
            name=name,
            email=email,
            run_id=run_id,
            orders=content.total.count,
            written_at=now,
        )
        if run_id is not None:
            work.count(ReportRun, "written", {"id": run_id}, written_at=now)
        ack.acknowledge()

    def _email_of(self, name: str, message: Message[User]) -> str | None:
        """Told with the record, or else before: maybe in this very batch, which is in no database
        yet."""
        told = _email_in(message)
        if told is not None:
            if len(self._told) >= MOST_TOLD:
                self._told.clear()
            self._told[name] = told
            return told
        with self._database.read() as connection:
            known = connection.scalar(select(Report.email).where(Report.name == name))
        return self._told.get(name, known)

    def _orders(self, email: str | None) -> Iterator[Line]:
        if email is None:
            return
        with self._database.read() as connection:
            for order_id, at, amount, decision in connection.execute(_ORDERS, {"email": email}):
                yield Line(order_id, moment(at), Decimal(amount), Decision(decision))


def run_of(correlation_id: str) -> str | None:
    """The run of ours that a request came of, through whatever program stood between. A client's
    own correlation id comes first, so the last one is ours."""
    runs = _RUN.findall(correlation_id)
    return runs[-1] if runs else None


def _email_in(message: Message[User]) -> str | None:
    value = message.header(USER_EMAIL)
    if not value or b"\0" in value:  # PostgreSQL takes none
        return None
    return value.decode("utf-8", "replace")


def _now() -> int:
    return time.time_ns() // 1_000_000
