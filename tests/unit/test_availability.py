"""A database that is away, as the log and the metrics tell of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.metrics import NoOpMeter
from sqlalchemy import delete, text

from shop.db import availability, engines
from shop.db.availability import READ, WRITE, Availability
from shop.db.database import Database
from shop.db.metrics import DatabaseMetrics
from shop.db.tables import position
from shop.kafka.errors import StoreUnavailable
from tests import logs
from tests.backends import Backend, stranger

LOGGER = "shop.db.availability"


@pytest.fixture
def database(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    database = backend.open("email", tmp_path)
    monkeypatch.setattr(engines, "LOCKED_S", 0)
    database.engine.dispose()
    yield database
    database.close()


@contextmanager
def only_to_be_read(database: Database, backend: Backend) -> Iterator[None]:
    if backend.postgres is None:
        with stranger(database):
            yield
    else:
        backend.postgres.only_to_be_read(True)
        yield
        backend.postgres.only_to_be_read(False)


def write(database: Database) -> None:
    with database.write() as connection:
        connection.execute(delete(position))


def fail_to_write(database: Database) -> None:
    with pytest.raises(StoreUnavailable):
        write(database)


def read(database: Database) -> None:
    with database.read() as connection:
        connection.execute(text("SELECT 1"))


def test_one_that_goes_and_comes_back_is_two_lines(
    database: Database,
    backend: Backend,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO", "shop.db")
    monkeypatch.setattr(availability, "CALM_S", 0.0)
    for _ in range(2):
        caplog.clear()
        write(database)
        with only_to_be_read(database, backend):
            for _ in range(3):
                fail_to_write(database)
                read(database)  # which does not mean that it is back
        write(database)
        write(database)

        away, back = logs.records(caplog, LOGGER)
        assert (away.levelname, back.levelname) == ("WARNING", "INFO")
        assert away.message.startswith(f"database {database.shown} is not available: ")
        assert away.message.endswith("; trying on")
        assert back.message == f"database {database.shown} is back"


AWAY = StoreUnavailable("database x is not available: full")


def test_one_that_is_away_for_some_only_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """As where a disk has room for the small."""
    database = Availability("x")
    for _ in range(100):
        database.worked(WRITE)
        database.failed(WRITE, AWAY)

    assert logs.messages(caplog, LOGGER) == [f"{AWAY}; trying on"]


def test_an_outage_is_told_also_when_nobody_has_tried_since_the_last(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Availability("x")
    database.worked(READ)
    database.failed(WRITE, AWAY)  # and nobody writes again for long
    database.failed(READ, AWAY)
    assert len(logs.messages(caplog, LOGGER)) == 2, "that it cannot even be read is news"
    monkeypatch.setattr(availability, "FORGOTTEN_S", 0.0)
    database.failed(WRITE, AWAY)

    assert len(logs.messages(caplog, LOGGER)) == 3


def test_a_mistake_in_a_statement_is_no_outage(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    read(database)
    with pytest.raises(Exception, match="no_such_table"), database.write() as connection:
        connection.execute(text("DELETE FROM no_such_table"))

    assert logs.records(caplog, LOGGER) == []


def test_one_that_never_was_there_is_told_of_by_who_needs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "no.db").write_bytes(b"this is no database at all, but it is long enough" * 100)
    database = Database(f"sqlite:///{tmp_path}/no.db")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="not a database"):
            read(database)
    database.close()

    assert logs.records(caplog, LOGGER) == []


class Waits(DatabaseMetrics):
    def __init__(self) -> None:
        super().__init__(NoOpMeter("test"))
        self.count = 0

    def waited(self, database: str, seconds: float) -> None:
        assert (database, seconds >= 0) == ("email", True)
        self.count += 1


def test_who_waits_in_vain_is_measured_too(database: Database, backend: Backend) -> None:
    waits = database.metrics = Waits()
    write(database)
    assert waits.count == 1
    if backend.postgres is None:
        with stranger(database):
            fail_to_write(database)
        assert waits.count == 2
