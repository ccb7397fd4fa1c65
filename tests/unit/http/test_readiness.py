"""Readiness as it is wired, in front of a disk that is full for a while."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from shop.broker import free_port
from shop.containers import Shop
from shop.db.changes import DataVersion
from shop.db.database import Database
from shop.db.probe import Probe
from shop.db.tables import outbox
from shop.settings import Http, Settings
from shop.wiring import serving
from tests.waiting import eventually


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(settings=Settings(data_dir=tmp_path, http=Http(port=free_port())))
    yield shop
    shop.databases().close()


@pytest.fixture
def client(shop: Shop) -> Iterator[httpx.Client]:
    server = shop.http_server()
    started = threading.Event()
    thread = threading.Thread(target=server.run, args=(started.set,))
    thread.start()
    assert started.wait(20)
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        yield client
    server.stop()
    thread.join(20)


class Disk:
    """Of a database, with as many pages as one says."""

    def __init__(self, database: Database) -> None:
        self.pages = 1_000_000
        event.listen(database.engine, "before_cursor_execute", self._limit)

    def _limit(self, connection: Any, *_: Any) -> None:
        driver = connection.connection.driver_connection
        driver.execute(f"PRAGMA max_page_count = {self.pages}")


def test_a_full_disk_is_told_as_long_as_it_takes_no_orders(
    shop: Shop, client: httpx.Client
) -> None:
    def post() -> int:
        order = {"email": "ana@example.com", "amount": 1}
        return client.post("/orders", json=order).status_code

    def said() -> tuple[int, str]:
        ready = client.get("/health/ready")
        return ready.status_code, ready.json()["checks"]["orders database"]

    disk = Disk(shop.databases().of("orders"))
    assert said() == (200, "ok")
    disk.pages = 1  # SQLite takes it as those that there are
    eventually(lambda: post() == 503, "a full disk")
    eventually(lambda: said()[0] == 503, "not ready")
    assert "full" in said()[1]
    assert post() == 503
    disk.pages = 1_000_000
    eventually(lambda: said() == (200, "ok"), "ready again")
    assert post() == 202


def test_what_is_not_published_for_a_while_is_told_and_orders_are_taken(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No relay runs here."""

    def said() -> tuple[int, str, str]:
        ready = client.get("/health/ready")
        return ready.status_code, ready.json()["status"], ready.json()["checks"]["orders outbox"]

    order = {"email": "ana@example.com", "amount": 1}
    assert client.post("/orders", json=order).status_code == 202
    assert said()[2] == "ok"
    monkeypatch.setattr(serving, "WAITS_S", 0.0)
    code, status, why = eventually(lambda: now if (now := said())[2] != "ok" else None)
    assert (code, status) == (200, "degraded")
    assert why.startswith("1 not published, the oldest for ")
    assert client.post("/orders", json=order).status_code == 202


def test_asking_often_writes_seldom_and_leaves_nothing(shop: Shop) -> None:
    database = shop.databases().of("orders")
    commits = DataVersion(database)
    commits.changed()
    probe = Probe(database, every_s=60)
    assert probe.trouble() is None
    assert commits.changed()
    Disk(database).pages = 1
    assert probe.trouble() is None
    assert not commits.changed()
    with database.read() as connection:
        assert connection.execute(outbox.select()).all() == []
