"""The users' database, and their routes on a real uvicorn."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from shop.db.database import Database
from shop.db.schema import upgrade
from shop.http.app import create_app
from shop.http.server import HttpServer
from shop.users.api import users_api
from shop.users.model import UserRow
from shop.users.reading import UserReader


class Api:
    """`users` are there from the start: in each millisecond two, a thousand milliseconds after the
    epoch and on."""

    def __init__(self, folder: Path, users: int) -> None:
        self.database = Database(f"sqlite:///{folder / 'users.db'}")
        upgrade(self.database, "shop.users")
        rows = [
            {"uuid": f"u{n}", "email": f"{n}@example.com", "created_at": 1000 + n // 2}
            for n in range(users)
        ]
        with self.database.write() as connection:
            connection.execute(insert(UserRow), rows)
        self.server = HttpServer(create_app(users_api(UserReader(self.database))), port=0)
        started = threading.Event()
        self._thread = threading.Thread(target=self.server.run, args=(started.set,))
        self._thread.start()
        assert started.wait(20)
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.server.port}", timeout=60)

    def get(self, url: str, **parameters: Any) -> httpx.Response:
        return self._client.get(url, params=parameters or None)

    def stop(self) -> None:
        self.server.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._client.close()
        self.database.close()


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """With 450 users. Only for reading."""
    running = Api(tmp_path_factory.mktemp("users"), users=450)
    yield running
    running.stop()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'users.db'}")
    upgrade(database, "shop.users")
    yield database
    database.close()
