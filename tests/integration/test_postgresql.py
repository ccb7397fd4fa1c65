"""What only a PostgreSQL can do to a shop: share it with others, keep it out, refuse its data."""

import asyncio
import os
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url

from shop.broker import free_port
from shop.databases import Databases
from shop.db import loop_reader
from shop.db.changes import DataVersion
from shop.db.database import Database
from shop.db.loop_reader import LoopReader
from shop.db.schema import SchemaError
from shop.db.store import DatabaseStore
from shop.kafka.connection import Connection
from shop.kafka.errors import StoreUnavailable
from shop.orders.desk import OrderDesk
from shop.orders.placement import placement
from shop.services import SERVICE_OF_GROUP
from shop.settings import Database as DatabaseSettings
from shop.settings import Settings
from shop.torture.place import own_settings, remove_schemas
from tests.backends import URL, rows
from tests.commands import run
from tests.postgres import PASSWORD, PostgresDatabase, PostgresServer, programs

SERVICES = tuple(dict.fromkeys(SERVICE_OF_GROUP.values()))


@pytest.fixture
def database(postgres: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresDatabase]:
    database = PostgresDatabase(postgres)
    monkeypatch.setenv(URL, database.url)
    yield database
    database.drop()


@pytest.fixture
def databases(database: PostgresDatabase) -> Iterator[Databases]:
    databases = Databases(Settings())
    yield databases
    databases.close()


def test_services_in_one_database_see_only_what_is_their_own(databases: Databases) -> None:
    def own(database: Database) -> set[str]:
        with database.read() as connection:
            return set(inspect(connection).get_table_names())

    tables = {service: own(databases.of(service)) for service in SERVICES}
    everywhere = set.intersection(*tables.values())
    assert everywhere == {
        "alembic_version", "held_key", "outbox", "position", "receipt", "topic_read"
    }  # fmt: skip
    assert "decision" in tables["fraud"]
    assert "decision" not in tables["orders"]

    with databases.of("fraud").write() as connection:
        connection.execute(text("INSERT INTO receipt VALUES ('g', 'id', 1)"))
    for service in SERVICES:
        with databases.of(service).read() as connection:
            count = connection.scalar(text("SELECT count(*) FROM receipt"))
        assert count == (service == "fraud"), service


def test_a_database_of_its_own_per_service_is_possible_too(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix = uuid4().hex[:8]
    made = {service: PostgresDatabase(postgres, f"{service}_{suffix}") for service in SERVICES[:2]}
    first = next(iter(made))
    monkeypatch.setenv(URL, made[first].url.replace(first, "{service}"))
    databases = Databases(Settings())
    for service in made:
        assert databases.of(service).engine.url.database == f"{service}_{suffix}"
    databases.close()
    for database in made.values():
        database.drop()


def test_schemas_that_a_torture_makes_are_its_own_and_go(
    databases: Databases, tmp_path: Path
) -> None:
    databases.of("orders")
    own = own_settings(Settings(), tmp_path, nodes=1)
    tortured = Databases(own)
    made = tortured.of("orders")
    assert made.schema == f"{own.database.schema_prefix}orders"
    tortured.close()

    remove_schemas(own)

    with databases.of("orders").read() as connection:
        schemas = set(inspect(connection).get_schema_names())
    assert "orders" in schemas
    assert not [name for name in schemas if name.startswith("torture")]


def test_a_server_that_keeps_the_shop_out_is_told_of_in_one_line(
    kafka: Connection, database: PostgresDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(database.url)
    refused = {
        "Connection refused": url.set(port=free_port()),
        "password authentication failed": url.set(password="another"),
        'database "nobody_has_it" does not exist': url.set(database="nobody_has_it"),
    }
    for why, other in refused.items():
        monkeypatch.setenv(URL, other.render_as_string(hide_password=False))
        with pytest.raises(StoreUnavailable, match=why):
            Databases(Settings()).of("orders")
        said = run(kafka, tmp_path, "verify")
        assert (said.code, said.stderr.count("\n")) == (2, 1)
        assert why in said.stderr
        assert PASSWORD not in said.stderr
        assert "another" not in said.stderr


def test_a_server_that_is_only_to_be_read_or_ends_a_session_is_not_available(
    databases: Databases, database: PostgresDatabase
) -> None:
    store = DatabaseStore(databases.of("fraud"))

    def claim(interrupt: Callable[[], None]) -> set[str]:
        with store.transaction("g", []) as transaction:
            interrupt()
            return transaction.claim(["a"])

    database.only_to_be_read(True)
    with pytest.raises(StoreUnavailable, match="read-only"):
        claim(lambda: None)
    database.only_to_be_read(False)
    with pytest.raises(StoreUnavailable, match="terminat"):
        claim(database.end_sessions)
    assert claim(lambda: None) == {"a"}


def test_a_server_that_is_too_old_is_refused(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shop.db.schema.OLDEST_POSTGRESQL", 99)
    with pytest.raises(SchemaError, match="99 or newer is needed"):
        databases.of("orders")


def test_two_processes_that_take_the_same_order_at_once_take_it_once(
    databases: Databases,
) -> None:
    def take(keys: Sequence[str], together: threading.Barrier) -> list[str]:
        async def one_by_one() -> list[str]:
            desk = OrderDesk(databases.of("orders"))
            taken = []
            for key in keys:
                order = placement("a@b", Decimal(1), None, correlation_id="C", key=key)
                await asyncio.to_thread(together.wait, 20)
                taken.append((await desk.take(order)).order_id)
            await desk.close()
            return taken

        return asyncio.run(one_by_one())

    databases.of("orders")
    keys = [f"key-{number}" for number in range(100)]
    together = threading.Barrier(2)
    with ThreadPoolExecutor(2) as processes:
        first, second = (processes.submit(take, keys, together) for _ in range(2))
    assert first.result() == second.result()
    assert rows(databases.of("orders"), "SELECT count(*) FROM orders") == [(100,)]
    assert rows(databases.of("orders"), "SELECT count(*) FROM outbox") == [(100,)]


def test_who_waits_hears_of_a_commit_and_lets_go_of_the_server_afterwards(
    databases: Databases, database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_reader, "IDLE_S", 0.1)
    monkeypatch.setattr(loop_reader, "SWEEP_S", 3600.0)
    orders = databases.of("orders")
    other = Databases(Settings())

    async def until(true: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(30):
            while not await true():
                await asyncio.sleep(0.002)

    async def is_quiet() -> bool:
        return not await reader.changed()

    async def nobody_listens() -> bool:
        return not await asyncio.to_thread(_listening, orders)

    async def wait() -> None:
        assert await reader.changed(), "it cannot know what was before"
        await until(is_quiet)
        assert await asyncio.to_thread(_listening, orders) == 1
        with other.of("orders").write():
            pass
        await until(reader.changed)
        await until(nobody_listens)
        assert await reader.changed(), "it was away"

    reader = LoopReader(orders)
    try:
        asyncio.run(wait())
    finally:
        reader.close()
        other.close()


def test_where_no_notices_come_it_is_looked_now_and_then_and_no_timer_stays(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a server in recovery, which can be read and lets nobody listen."""
    tries: list[object] = []

    def refused(notices: DataVersion) -> bool:
        tries.append(notices)
        return True

    monkeypatch.setattr(DataVersion, "changed", refused)
    monkeypatch.setattr(loop_reader, "SWEEP_S", 3600.0)  # and so long until the next try

    async def ask() -> tuple[list[bool], int]:
        answers = [await reader.changed() for _ in range(100)]
        timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        return answers, len(timers)

    reader = LoopReader(databases.of("orders"))
    monkeypatch.setattr(loop_reader, "DEAF_S", 3600.0)
    assert asyncio.run(ask()) == ([True] + [False] * 99, 0)
    monkeypatch.setattr(loop_reader, "DEAF_S", -1.0)
    assert asyncio.run(ask()) == ([True] * 100, 0)
    assert len(tries) == 1


def _listening(database: Database) -> int:
    """How many connections listen for commits."""
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )
    return int(rows(database, query)[0][0])


def test_the_containers_database_belongs_to_a_role_that_is_no_superuser(tmp_path: Path) -> None:
    """docker/postgres.sh, as PostgreSQL's image runs it."""
    server = PostgresServer()
    secret = tmp_path / "it's a secret"
    secret.write_text("two words'\n")
    address = make_url(server.url)
    assert address.host is not None
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("DROP ROLE shop")  # as it is where nobody has made it yet
        subprocess.run(
            ["sh", "docker/postgres.sh"],
            cwd=Path(__file__).parents[2],
            env=os.environ
            | {
                "PATH": f"{programs()}:{os.environ['PATH']}",
                "POSTGRES_USER": "postgres",
                "SHOP_PASSWORD_FILE": str(secret),
                "PGHOST": address.host,
                "PGPORT": str(address.port),
                "PGPASSWORD": str(address.password),
            },
            check=True,
        )
        url = address.set(username="shop", password="two words'", database="shop")
        given = DatabaseSettings(url=SecretStr(url.render_as_string(hide_password=False)))
        with closing(Databases(Settings(data_dir=tmp_path, database=given))) as databases:
            found = rows(databases.of("fraud"), "SELECT current_setting('is_superuser')")
        assert found == [("off",)]
    finally:
        server.remove()
