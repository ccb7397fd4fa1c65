"""Several requests for one user's report in one polled batch."""

from pathlib import Path

from sqlalchemy import select

from shop.db.database import Database
from shop.db.schema import upgrade
from shop.db.store import DatabaseStore
from shop.events import User
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.store import Move, Partition
from shop.kafka.wire import Headers, Message
from shop.reports.files import ReportFiles
from shop.reports.listeners import Reports
from shop.reports.model import Report
from shop.topics import USER_EMAIL

UUID = "85268c5a-2b6e-4f0a-a7b1-6f3a3e0c9d11"
TOLD: Headers = [(USER_EMAIL, b"ana@example.com")]
UNTOLD: Headers = []  # as the Java batch sends it


def run(number: int) -> str:
    return f"00000000-0000-7000-a000-00000000000{number}"


def test_the_last_request_counts_and_an_address_once_told_stays_known(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'reports.db'}")
    upgrade(database, "shop.reports")
    store, files = DatabaseStore(database), ReportFiles(tmp_path / "reports")
    reports = Reports(database, files)
    notes = []
    for number, headers in enumerate((UNTOLD, TOLD, UNTOLD)):
        correlation_id = f"ReportController({run(number)})-Batch(1)"
        message = Message(
            User(uuid=UUID), UUID, "T", 0, number, 1, f"e{number}", correlation_id, None, headers
        )
        notes.append(store.notes("reports", message, f"e{number}", "Reports"))
        reports.write(message, notes[-1], Acknowledgment())
    with store.transaction("reports", [Move(Partition("T", 0), None, 3)]) as transaction:
        for noted in notes:
            transaction.accept(noted)

    with database.read() as connection:
        row = connection.execute(select(Report.__table__)).one()
    database.close()
    assert (row.email, row.run_id) == ("ana@example.com", run(2))
    assert "ana@example.com" in (files.read(UUID, ".txt") or "")
