import asyncio
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from shop.db.changes import DataVersion
from shop.db.database import Database
from shop.db.election import Election
from shop.db.group_commit import GroupCommit
from shop.db.schema import SchemaError, upgrade
from shop.db.store import DatabaseStore
from shop.db.tables import outbox, receipt
from shop.kafka.dispatch import RecordFailed
from shop.kafka.errors import StoreUnavailable
from shop.kafka.store import Move, Partition
from tests.backends import Backend
from tests.waiting import eventually


@pytest.fixture
def database(backend: Backend, tmp_path: Path) -> Iterator[Database]:
    database = backend.open("email", tmp_path)
    yield database
    database.close()


def receipts(database: Database) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(receipt)) or 0


def test_many_threads_on_one_database_never_meet_a_lock(database: Database) -> None:
    store = DatabaseStore(database)
    failures: list[BaseException] = []

    def consume(number: int) -> None:
        partition = Partition("T", number)
        try:
            for offset in range(30):
                store.seen("g", [f"{number}-{offset}"])
                move = Move(partition, offset or None, offset + 1)
                with store.transaction("g", [move]) as transaction:
                    transaction.claim([f"{number}-{offset}"])
        except BaseException as error:
            failures.append(error)

    def relay() -> None:
        version = DataVersion(database)
        try:
            for _ in range(60):
                version.changed()
                with database.write(durable=False) as connection:
                    connection.execute(outbox.delete())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=consume, args=(n,)) for n in range(6)]
    threads += [threading.Thread(target=relay) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert receipts(database) == 180


def test_a_process_killed_within_a_transaction_leaves_nothing_and_no_lock(
    database: Database, tmp_path: Path
) -> None:
    code = f"""
        import os, signal
        from pathlib import Path
        from shop.databases import Databases
        from shop.db.store import DatabaseStore
        from shop.kafka.store import Move, Partition
        from shop.settings import Settings
        store = DatabaseStore(Databases(Settings(data_dir=Path({str(tmp_path)!r}))).of("email"))
        with store.transaction("g", [Move(Partition("T", 0), None, 1)]) as transaction:
            transaction.claim(["a"])
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert killed.returncode == -9
    store = DatabaseStore(database)
    with store.transaction("g", [Move(Partition("T", 0), None, 1)]) as transaction:
        assert transaction.claim(["a"]) == {"a"}


def test_data_version_tells_of_others_commits(database: Database) -> None:
    version = DataVersion(database)
    version.changed()
    assert not version.changed()
    with database.write() as connection:
        connection.execute(outbox.delete())
    eventually(version.changed)
    assert not version.changed()


def test_one_is_elected_and_another_after_it_resigned(database: Database) -> None:
    first, second = Election(database, "relay"), Election(database, "relay")
    assert first.won()
    assert first.won()
    assert not second.won()
    first.resign()
    assert second.won()
    second.resign()


def test_a_full_disk_is_the_databases_fault_and_leaves_it_whole(
    database: Database, backend: Backend
) -> None:
    if backend.postgres is not None:
        pytest.skip(
            "there is no quota on PostgreSQL; one that may only be read is tested elsewhere"
        )
    rows = [{"consumer_group": "g", "id": f"{n:0500}", "received_at": 0} for n in range(99)]

    def write_beyond_the_end() -> None:
        with database.write() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            connection.execute(receipt.insert(), rows)

    with pytest.raises(StoreUnavailable, match="full"):
        write_beyond_the_end()
    database.engine.dispose()  # the limit goes with its connection
    assert receipts(database) == 0
    with DatabaseStore(database).transaction("g", []) as transaction:
        assert transaction.claim(["a"]) == {"a"}


def test_a_mistake_in_the_data_is_no_fault_of_the_database(database: Database) -> None:
    row = {"consumer_group": "g", "id": "a", "received_at": 0}
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(receipt.insert(), [row, row])


def test_a_schema_of_a_newer_program_is_refused(database: Database) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaError, match="newer than this program"):
        upgrade(database, "shop.email")


def test_many_processes_may_bring_a_new_database_to_its_schema(
    backend: Backend, tmp_path: Path
) -> None:
    code = f"""
        from pathlib import Path
        from shop.databases import Databases
        from shop.settings import Settings
        Databases(Settings(data_dir=Path({str(tmp_path)!r}))).of("orders")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]


def test_connections_that_are_the_first_of_a_new_file_at_once_meet_no_lock(tmp_path: Path) -> None:
    for number in range(100):  # one round in fifteen meets it, where nobody takes care
        databases = [Database(f"sqlite:///{tmp_path}/{number}.db") for _ in range(8)]
        start = threading.Barrier(len(databases))

        def connect(database: Database, start: threading.Barrier = start) -> str:
            start.wait()
            with database.read() as connection:
                return str(connection.scalar(text("PRAGMA journal_mode")))

        with ThreadPoolExecutor(len(databases)) as threads:
            assert set(threads.map(connect, databases)) == {"wal"}
        for database in databases:
            database.close()


def test_an_sqlite_database_is_a_file_and_no_other_kind_is_known() -> None:
    with pytest.raises(ValueError, match="is a file"):
        Database("sqlite://")
    with pytest.raises(ValueError, match="neither sqlite nor postgresql"):
        Database("mysql://host/shop")


# --- group commit ---------------------------------------------------------------------------------


def test_requests_at_once_share_transactions_and_each_has_its_own_answer(
    database: Database,
) -> None:
    groups: list[int] = []

    def execute(connection: Connection, requests: Sequence[int]) -> Sequence[int]:
        groups.append(len(requests))
        rows = [{"consumer_group": "g", "id": str(r), "received_at": 0} for r in requests]
        connection.execute(receipt.insert(), rows)
        return [request * 2 for request in requests]

    async def many() -> list[int]:
        commit = GroupCommit(database, execute)
        answers = await asyncio.gather(*(commit.submit(number) for number in range(300)))
        await commit.close()
        return answers

    assert asyncio.run(many()) == [number * 2 for number in range(300)]
    assert receipts(database) == 300
    assert len(groups) < 10


def test_a_bad_request_fails_alone(database: Database) -> None:
    def execute(connection: Connection, requests: Sequence[str]) -> Sequence[str]:
        rows = [{"consumer_group": "g", "id": r, "received_at": 0} for r in requests]
        connection.execute(receipt.insert(), rows)
        return list(requests)

    async def many() -> list[str | BaseException]:
        commit = GroupCommit(database, execute)
        requests = ["a", "b", "a", "c"]
        return await asyncio.gather(*map(commit.submit, requests), return_exceptions=True)

    a, b, again, c = asyncio.run(many())
    assert (a, b, c) == ("a", "b", "c")
    assert isinstance(again, IntegrityError)
    assert receipts(database) == 3


def test_a_request_that_was_given_up_before_its_turn_is_not_written(database: Database) -> None:
    """Its client was told that it is not."""
    written: list[str] = []

    def write(_: Connection, names: Sequence[str]) -> Sequence[str]:
        written.extend(names)
        return names

    async def give_up() -> None:
        commit = GroupCommit[str, None](
            database, lambda _, names: [written.append(n) for n in names]
        )
        began = threading.Event()
        end = threading.Event()

        def hold() -> None:
            with database.write():
                began.set()
                end.wait(20)

        holder = threading.Thread(target=hold)
        holder.start()
        await asyncio.to_thread(began.wait, 20)
        first = asyncio.create_task(commit.submit("first"))
        await asyncio.sleep(0)  # it has its turn, and waits for the lock
        second, third = (asyncio.create_task(commit.submit(name)) for name in ("second", "third"))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        end.set()
        await asyncio.gather(first, third)
        await commit.close()
        holder.join()

    asyncio.run(give_up())
    assert written == ["first", "third"]


def test_a_listeners_read_that_finds_the_database_away_is_not_its_records_fault(
    database: Database,
) -> None:
    broken = sqlite3.OperationalError("disk I/O error")
    broken.sqlite_errorcode = sqlite3.SQLITE_IOERR
    away = RecordFailed(0, OperationalError("SELECT 1", {}, broken))
    wrong = RecordFailed(0, IntegrityError("SELECT 1", {}, sqlite3.IntegrityError("unique")))
    store = DatabaseStore(database)
    with pytest.raises(StoreUnavailable, match="disk I/O"), store.transaction("g", []):
        raise away
    with pytest.raises(RecordFailed), store.transaction("g", []):
        raise wrong
