"""The routes of pix on a real uvicorn and a real SQLite file; what Kafka would get is read in the
outbox."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import select, update

from shop.db.database import Database
from shop.db.schema import upgrade
from shop.db.tables import outbox
from shop.events import Pix
from shop.http.app import create_app
from shop.http.server import HttpServer
from shop.http.waiting import LongPoll
from shop.kafka.wire import Headers
from shop.pix.api import pix_api
from shop.pix.keys import KeyDesk
from shop.pix.model import PaymentRow, Status
from shop.pix.reading import PixReader
from shop.pix.transfer import PaymentDesk
from shop.topics import PIX


class Sent(msgspec.Struct):
    """A record in the outbox."""

    key: str
    pix: Pix
    headers: dict[str, str]


class Api:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "pix.db"
        self.database = Database(f"sqlite:///{self.file}")
        upgrade(self.database, "shop.pix")
        reader = PixReader(self.database)
        self.outcomes = LongPoll(reader)
        desks = PaymentDesk(self.database), KeyDesk(self.database)
        self.server = HttpServer(create_app(pix_api(*desks, reader, self.outcomes)), port=0)
        self.url = f"http://127.0.0.1:{self.server.port}"
        started = threading.Event()
        self._thread = threading.Thread(target=self.server.run, args=(started.set,))
        self._thread.start()
        assert started.wait(20)
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def pay(
        self, source: Any, target: Any = "bia", amount: Any = 10, key: str | None = None
    ) -> httpx.Response:
        """POST /pix, under an Idempotency-Key if one is given."""
        body = {"chaveOrigem": source, "chaveDestino": target, "valor": amount}
        return self.client.post("/pix", json=body, headers={"Idempotency-Key": key} if key else {})

    def post_bytes(
        self, body: bytes, path: str = "/pix", media_type: str = "application/json"
    ) -> httpx.Response:
        return self.client.post(path, content=body, headers={"content-type": media_type})

    def register(self, key: Any) -> httpx.Response:
        return self.client.post("/pix/keys", json={"chave": key})

    def rows(self, source: str) -> list[Any]:
        """The payments of a key."""
        query = select(PaymentRow.__table__).where(PaymentRow.source_key == source)
        with self.database.read() as connection:
            return list(connection.execute(query))

    def sent(self, source: str) -> list[Sent]:
        """What waits to be sent of a key's payments, in order."""
        with self.database.read() as connection:
            rows = connection.execute(select(outbox).order_by(outbox.c.id)).all()
        assert all(row.topic == PIX.name for row in rows)
        return [one for one in map(_sent, rows) if one.pix.source_key == source]

    def decide(self, identifier: str, status: Status = Status.PROCESSED) -> None:
        """As the listener does."""
        with self.database.write() as connection:
            connection.execute(
                update(PaymentRow)
                .where(PaymentRow.identifier == identifier)
                .values(status=status.value, decided_at=1)
            )

    def stop(self) -> None:
        self.server.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.client.close()
        self.database.close()


def _sent(row: Any) -> Sent:
    headers = msgspec.msgpack.decode(row.headers, type=Headers)
    names = {name: value.decode() for name, value in headers}
    return Sent(row.key, PIX.codec.decode(row.value)[0], names)


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One for the tests that leave it as it was, but for their own payments and keys."""
    running = Api(tmp_path_factory.mktemp("pix"))
    yield running
    running.stop()


@pytest.fixture
def start_api(tmp_path: Path) -> Iterator[Callable[[], Api]]:
    """One of a test's own, stopped after it."""
    running: list[Api] = []

    def start() -> Api:
        running.append(Api(tmp_path))
        return running[-1]

    yield start
    for one in running:
        one.stop()
