"""The reports group from the topic to files on disk, against a naive writer.

Ours is the real process, `shop listen --group reports`. The naive one takes a record at a time:
reads the orders, renders the same, writes the files as safely, then a transaction and a synchronous
commit. Both write the reports of the same users, of 10 orders each; they take turns, and the
medians count.
"""

import statistics
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from bench.harness import Stopwatch, kafka, listening, one_by_one, rate, show
from shop.db.database import Database
from shop.db.schema import upgrade
from shop.events import User
from shop.http.moment import moment
from shop.kafka import correlation
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.outbound import outbound
from shop.kafka.template import KafkaTemplate
from shop.reports.content import Line, content_of
from shop.reports.files import ReportFiles
from shop.reports.model import CustomerOrder, Decision, Report, ReportRun
from shop.reports.page import as_page
from shop.reports.text import as_text
from shop.topics import ALL, USER_EMAIL, USER_GENERATE_READING_REPORT

USERS = 6_000
NAIVE_USERS = 600
ORDERS = 10  # of each
ROUNDS = 3
RUN = str(uuid4())


def fill_topic(connection: Connection) -> None:
    with KafkaTemplate(connection, linger_ms=5) as template:
        for number in range(USERS):
            uuid = str(uuid4())
            record = outbound(
                USER_GENERATE_READING_REPORT,
                uuid,
                User(uuid=uuid),
                correlation_id=correlation.begin("ReportController", RUN),
                headers=[(USER_EMAIL, f"customer{number}@example.com".encode())],
            )
            template.publish(record, lambda *_: None)


def new_database(folder: Path) -> Database:
    """With the orders, and a run to be counted."""
    database = Database(f"sqlite:///{folder / 'reports.db'}")
    upgrade(database, "shop.reports")
    orders: list[dict[str, Any]] = [
        {
            "order_id": str(uuid4()),
            "email": f"customer{number % USERS}@example.com",
            "amount": Decimal(number % 500_000) / 100 + 1,
            "decision": Decision.APPROVED,
            "at": 1_795_000_000_000 + number,
        }
        for number in range(USERS * ORDERS)
    ]
    run = {"id": RUN, "correlation_id": "", "requested_at": 0, "written": 0}
    with database.write() as connection:
        connection.execute(CustomerOrder.__table__.insert(), orders)
        connection.execute(ReportRun.__table__.insert(), run)
    return database


def ours(connection: Connection, folder: Path) -> float:
    """Reports per second, from the first that is counted to the last."""
    database = new_database(folder)

    def written() -> int:
        with database.read() as reading:
            return reading.scalar(select(ReportRun.written)) or 0

    with listening(connection, "reports", folder) as process:
        measured = rate(process, written, USERS)
    database.close()
    return measured


def naive(connection: Connection, folder: Path) -> float:
    database = new_database(folder)
    files = ReportFiles(folder / "reports")
    watch = None
    for record in one_by_one(connection, USER_GENERATE_READING_REPORT, NAIVE_USERS):
        watch = watch or Stopwatch()
        user, _ = USER_GENERATE_READING_REPORT.codec.decode(record.value())
        email = dict(record.headers() or [])[USER_EMAIL].decode()
        now = time.time_ns() // 1_000_000
        with Session(database.engine) as session, session.begin():
            query = select(CustomerOrder).where(CustomerOrder.email == email)
            lines = [
                Line(row.order_id, moment(row.at), row.amount, Decision(row.decision))
                for row in session.scalars(query.order_by(CustomerOrder.at))
            ]
            content = content_of(user.uuid, email, moment(now), lines)
            files.write(user.uuid, {".txt": as_text(content), ".html": as_page(content)})
            report = Report(
                name=user.uuid, email=email, run_id=RUN, orders=len(lines), written_at=now
            )
            session.add(report)
            session.execute(text("UPDATE report_run SET written = written + 1"))
    assert watch is not None
    measured = NAIVE_USERS / watch.wall
    database.close()
    return measured


def main() -> None:
    rates: dict[str, list[float]] = {"ours": [], "naive": []}
    with kafka() as connection:
        create_topics(connection, ALL)
        fill_topic(connection)
        for _ in range(ROUNDS):
            for name, measure in (("naive", naive), ("ours", ours)):
                with tempfile.TemporaryDirectory() as folder:
                    rates[name].append(measure(connection, Path(folder)))
    mine, other = statistics.median(rates["ours"]), statistics.median(rates["naive"])
    show(
        "reports",
        [
            ("naive: a record, its files, a transaction, a commit", f"{other:>7,.0f} reports/s"),
            ("shop listen --group reports", f"{mine:>7,.0f} reports/s  ratio {mine / other:.1f}"),
        ],
        reports=USERS,
        orders_each=ORDERS,
        reports_per_s=round(mine),
        ratio=round(mine / other, 1),
        rounds=[round(rate) for rate in rates["ours"]],
    )


if __name__ == "__main__":
    main()
