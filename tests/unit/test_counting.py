"""Work.count: a number in a row, raised together with what it counts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from shop.db.database import Database
from shop.db.schema import upgrade
from shop.db.store import DatabaseStore
from shop.db.work import Work
from shop.kafka.store import Move, Partition
from shop.kafka.wire import Message
from shop.reports.model import ReportRun

MESSAGE = Message("", None, "T", 0, 0, -1, "event", "Test(1)", None, [])


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'reports.db'}")
    upgrade(database, "shop.reports")
    with database.write() as connection:
        for run in ("a", "b"):
            values = {"id": run, "correlation_id": "", "requested_at": 0, "written": 0}
            connection.execute(ReportRun.__table__.insert(), values)
    yield database
    database.close()


def counts(database: Database) -> dict[str, tuple[int, int | None]]:
    with database.read() as connection:
        rows = connection.execute(select(ReportRun.id, ReportRun.written, ReportRun.written_at))
        return {id_: (written, at) for id_, written, at in rows}


def count(work: Work, run: str, at: int) -> None:
    work.count(ReportRun, "written", {"id": run}, written_at=at)


def test_a_batch_counts_once_per_record_with_one_update_per_row(database: Database) -> None:
    store = DatabaseStore(database)
    updates: list[Any] = []
    with store.transaction("g", [Move(Partition("T", 0), None, 5)]) as transaction:
        count(transaction.work(MESSAGE, "1", "Test"), "a", at=1)
        for number in range(2, 5):
            notes = store.notes("g", MESSAGE, str(number), "Test")
            count(notes, "a" if number < 4 else "b", at=number)
            transaction.accept(notes)
        event.listen(
            database.engine, "before_cursor_execute", lambda *args: updates.append(args[2])
        )
    assert counts(database) == {"a": (3, 3), "b": (1, 4)}
    assert len([sql for sql in updates if sql.startswith("UPDATE report_run")]) == 2


def test_a_batch_that_fails_counts_nothing(database: Database) -> None:
    store = DatabaseStore(database)

    def fail() -> None:
        with store.transaction("g", [Move(Partition("T", 0), None, 5)]) as transaction:
            count(transaction.work(MESSAGE, "1", "Test"), "a", at=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert counts(database)["a"] == (0, None)


def test_what_has_no_row_is_not_counted(database: Database) -> None:
    store = DatabaseStore(database)
    with store.transaction("g", [Move(Partition("T", 0), None, 5)]) as transaction:
        count(transaction.work(MESSAGE, "1", "Test"), "nobody's", at=1)
    assert counts(database) == {"a": (0, None), "b": (0, None)}
