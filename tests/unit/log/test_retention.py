import threading
import time
from pathlib import Path

from sqlalchemy import select, update

from shop.db.database import Database
from shop.log.model import AuditRecord
from shop.log.retention import Retention, retention
from tests.unit.log.conftest import Trail
from tests.waiting import eventually

TOPIC = "ECOMMERCE_NEW_ORDER"
DAY_MS = 86_400_000
MB = 1_000_000


def offsets(database: Database) -> list[int]:
    with database.read() as connection:
        return list(connection.scalars(select(AuditRecord.offset).order_by(AuditRecord.id)))


def until_nothing_is_too_much(retention: Retention) -> None:
    while retention.step(threading.Event()):
        pass


def test_what_is_too_old_goes_and_the_rest_stays(database: Database, trail: Trail) -> None:
    old = 1200  # more than is deleted at once
    trail.keep(TOPIC, "C", copies=old)
    trail.keep(TOPIC, "C", copies=10)
    aged = update(AuditRecord).where(AuditRecord.offset < old)
    with database.write() as connection:
        connection.execute(aged.values(stored_at=time.time_ns() // MB - 3 * DAY_MS))

    until_nothing_is_too_much(Retention(database, keep_days=3.5, keep_mb=1000))
    assert len(offsets(database)) == old + 10

    until_nothing_is_too_much(Retention(database, keep_days=2.5, keep_mb=1000))
    assert offsets(database) == list(range(old, old + 10))


def test_beyond_its_size_the_oldest_go_and_the_file_does_not_grow(
    database: Database, trail: Trail, tmp_path: Path
) -> None:
    file = tmp_path / "log.db"
    sizes = []
    for _ in range(8):
        for _ in range(10):
            trail.keep(TOPIC, "C", value=b"x" * 10_000, copies=10)
        until_nothing_is_too_much(Retention(database, keep_days=30, keep_mb=2))
        with database.read() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes.append(file.stat().st_size)
    left = offsets(database)
    assert left == list(range(left[0], 800))
    assert 1.5 * MB < len(left) * 10_000 < 2 * MB, "not more than was too much"
    assert max(sizes) < 3.5 * MB
    assert sizes[-1] == sizes[2]


def test_records_larger_than_what_is_kept_go_one_by_one(database: Database, trail: Trail) -> None:
    for _ in range(4):
        trail.keep(TOPIC, "C", value=b"x" * 900_000)
    until_nothing_is_too_much(Retention(database, keep_days=30, keep_mb=3))
    assert offsets(database) == [1, 2, 3]


def test_its_steward_deletes_while_records_are_stored(database: Database, trail: Trail) -> None:
    steward = retention(database, keep_days=30, keep_mb=1)
    steward.start()
    for _ in range(40):
        trail.keep(TOPIC, "C", value=b"x" * 10_000, copies=10)
    eventually(lambda: 0 < len(offsets(database)) < 100, "only the newest")
    assert steward.stop(30)
    assert offsets(database)[-1] == 399
