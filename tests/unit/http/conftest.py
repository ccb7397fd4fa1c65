"""The API on a real uvicorn and a real SQLite file; what Kafka would get is read in the outbox."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from opentelemetry import trace
from sqlalchemy import select, update

from shop.db.database import Database
from shop.db.schema import upgrade
from shop.db.tables import outbox
from shop.events import Order
from shop.health import Checks, health_api
from shop.http.app import create_app
from shop.http.server import HttpServer
from shop.http.waiting import LongPoll
from shop.kafka.wire import Headers
from shop.orders.api import orders_api
from shop.orders.desk import OrderDesk
from shop.orders.model import OrderRow, Status
from shop.orders.reading import OrderReader
from shop.topics import NEW_ORDER


class Sent(msgspec.Struct):
    """A record in the outbox."""

    key: str
    order: Order
    correlation_id: str
    headers: dict[str, str]


class Api:
    def __init__(
        self,
        folder: Path,
        *,
        checks: Checks | None = None,
        tracer: trace.Tracer | None = None,
    ) -> None:
        self.file = folder / "orders.db"
        self.database = Database(f"sqlite:///{self.file}")
        upgrade(self.database, "shop.orders")
        reader = OrderReader(self.database)
        self.decisions = LongPoll(reader)
        self.app = create_app(
            orders_api(OrderDesk(self.database), reader, self.decisions),
            health_api(checks or Checks({"orders database": lambda: None})),
            tracer=tracer,
        )
        self.server = HttpServer(self.app, port=0)
        self.url = f"http://127.0.0.1:{self.server.port}"
        started = threading.Event()
        self._thread = threading.Thread(target=self.server.run, args=(started.set,))
        self._thread.start()
        assert started.wait(20)
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def post(self, body: Any, **headers: str) -> httpx.Response:
        """POST /orders; headers as names with _ for -."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post("/orders", json=body, headers=names)

    def post_bytes(self, body: bytes, media_type: str = "application/json") -> httpx.Response:
        return self.client.post("/orders", content=body, headers={"content-type": media_type})

    def get(self, url: str, **parameters: Any) -> httpx.Response:
        return self.client.get(url, params=parameters or None)

    def order_ids(self, email: str) -> list[str]:
        query = select(OrderRow.id).where(OrderRow.email == email)
        with self.database.read() as connection:
            return list(connection.scalars(query))

    def sent(self, email: str) -> list[Sent]:
        """What waits to be sent for a customer, in order."""
        query = select(outbox).where(outbox.c.key == email).order_by(outbox.c.id)
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        assert all(row.topic == NEW_ORDER.name for row in rows)
        return [_sent(row) for row in rows]

    def decide(self, order_id: str, status: Status = Status.APPROVED) -> None:
        """As the listener of decisions does."""
        with self.database.write() as connection:
            connection.execute(
                update(OrderRow)
                .where(OrderRow.id == order_id)
                .values(status=status, decided_at=1_700_000_000_000, correlation_id="decided")
            )

    def stop(self) -> None:
        self.server.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.client.close()
        self.database.close()


def _sent(row: Any) -> Sent:
    order, correlation_id = NEW_ORDER.codec.decode(row.value)
    headers = msgspec.msgpack.decode(row.headers, type=Headers)
    assert correlation_id is not None
    names = {name: value.decode() for name, value in headers}
    return Sent(row.key, order, correlation_id, names)


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One for the tests that leave it as it was, but for their own orders."""
    running = Api(tmp_path_factory.mktemp("api"))
    yield running
    running.stop()


@pytest.fixture
def start_api(tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """start_api(checks=…, tracer=…): one of a test's own, stopped after it."""
    running: list[Api] = []

    def start(**options: Any) -> Api:
        running.append(Api(tmp_path, **options))
        return running[-1]

    yield start
    for one in running:
        one.stop()
