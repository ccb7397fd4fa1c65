"""Letters as the group keeps them, in a real SQLite file, behind a real API. What Kafka would get
is read in the outbox."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import select

from shop.containers import Shop
from shop.databases import Databases
from shop.db.database import Database
from shop.db.releasing import release_letters
from shop.db.steward import Steward
from shop.db.store import DatabaseStore
from shop.db.tables import outbox
from shop.deadletters.api import deadletters_api
from shop.deadletters.destinations import Destinations
from shop.deadletters.discarding import Discards
from shop.deadletters.listeners import DeadLetterKeeper
from shop.deadletters.reading import LetterReader
from shop.deadletters.redrives import Redrives
from shop.deadletters.sending import redrive_steward
from shop.http.app import create_app
from shop.http.server import HttpServer
from shop.kafka.dead_letter import DeadLetters, Failure, dead_letter
from shop.kafka.dispatch import Dispatcher, Record
from shop.kafka.listener import ListenerRegistry
from shop.kafka.outbound import OutboundRecord
from shop.kafka.positions import Positions
from shop.kafka.settlement import Transactional
from shop.kafka.store import Partition
from shop.printable import shortened
from shop.settings import Settings
from shop.topics import DEADLETTER
from tests.waiting import eventually

OURS: Destinations = Shop(settings=Settings()).destinations()


@dataclass(frozen=True)
class Raw:
    """A record as confluent_kafka gives it."""

    where: str = "ECOMMERCE_NEW_ORDER"
    at: int = 0
    its_key: bytes | None = b"ana@example.com"
    its_value: bytes | None = b"not an envelope"
    its_headers: Sequence[tuple[str, bytes | None]] = ()
    time: int = 1_700_000_000_000

    def topic(self) -> str:
        return self.where

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.its_key

    def value(self) -> bytes | None:
        return self.its_value

    def headers(self) -> list[tuple[str, bytes | None]]:
        return [*self.its_headers]

    def timestamp(self) -> tuple[int, int]:
        return 1, self.time

    def error(self) -> None: ...


class Keeper:
    """What the group does with the records of its topic."""

    def __init__(self, database: Database) -> None:
        registry = ListenerRegistry()
        registry.add(DeadLetterKeeper())
        store = DatabaseStore(database)
        dispatcher = Dispatcher("deadletter", registry.endpoints("deadletter", store.work_type))
        self._settlement = Transactional(dispatcher, store, DeadLetters())
        self._partition = Partition(DEADLETTER.name, 0)
        self._positions = Positions()
        self._positions.assign({self._partition: None})
        self.taken = 0

    def take(self, *records: OutboundRecord) -> None:
        """In one batch."""
        batch = []
        for record in records:
            key = record.key.encode() if isinstance(record.key, str) else record.key
            raw = Raw(DEADLETTER.name, self.taken, key, record.value, record.headers, -1)
            batch.append(Record(self._partition, self.taken, raw))
            self.taken += 1
        self._settlement.settle(batch, self._positions, threading.Event())

    def fail(self, *records: Raw, group: str = "fraud", error: Exception | None = None) -> None:
        """Their letters, as the group writes them, come in one batch."""
        failure = Failure(group, error or ValueError("no"), 4)
        self.take(*(dead_letter(record, failure, DEADLETTER.name) for record in records))


@dataclass
class Api:
    folder: Path
    admin_token: str | None = None
    destinations: Destinations = OURS
    released: list[tuple[str, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        databases = Databases(Settings(data_dir=self.folder))
        self.database = databases.of("deadletters")
        self.groups = databases.of("fraud")  # with what it holds back
        self.keeper = Keeper(self.database)
        self._steward: Steward | None = None
        discards = Discards(self.database, self._release)
        reader = LetterReader(self.database, shortened)
        app = create_app(
            deadletters_api(reader, Redrives(self.database, self.destinations), discards),
            admin_token=self.admin_token,
        )
        self._server = HttpServer(app, port=0)
        started = threading.Event()
        self._thread = threading.Thread(target=self._server.run, args=(started.set,))
        self._thread.start()
        assert started.wait(20)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def _release(self, group: str, letters: Sequence[str]) -> None:
        self.released.append((group, [*letters]))
        release_letters(self.groups, group, letters)

    def send_redrives(self) -> None:
        """From now on, as the process of the API does."""
        self._steward = redrive_steward(self.database, self.destinations)
        self._steward.start()

    def letters(self, **asked: Any) -> list[Any]:
        """The newest first."""
        answer = self.client.get("/deadletters", params=asked)
        assert answer.status_code == 200, answer.text
        found: list[Any] = answer.json()["letters"]
        return found

    def letter(self, id_: str) -> Any:
        answer = self.client.get(f"/deadletters/{id_}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def only(self) -> Any:
        """The one letter that is there, whole."""
        (letter,) = self.letters()
        return self.letter(letter["id"])

    def redrive(self, status: int = 202, key: str | None = None, **asked: Any) -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        body = {"by": "ops"} | asked
        answer = self.client.post("/deadletters/redrive", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    def redriven(self, **asked: Any) -> Any:
        """The redrive once it is finished."""
        return self.finished(self.redrive(**asked))

    def finished(self, begun: Any) -> Any:
        """The same redrive once it is finished."""

        def finished() -> Any:
            redrive = self.client.get(f"/deadletters/redrives/{begun['id']}").json()
            return redrive if redrive["state"] == "finished" else None

        return eventually(finished, "the redrive")

    def sent(self) -> list[OutboundRecord]:
        """What waits to be published, in order."""
        with self.database.read() as connection:
            rows = connection.execute(select(outbox).order_by(outbox.c.id)).all()
        return [
            OutboundRecord(
                row.topic,
                row.key if row.raw_key is None else row.raw_key,
                row.value,
                msgspec.msgpack.decode(row.headers, type=list[tuple[str, bytes | None]]),
            )
            for row in rows
        ]

    def stop(self) -> None:
        if self._steward is not None:
            self._steward.stop(20)
        self._server.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.client.close()
        self.database.close()
        self.groups.close()


@pytest.fixture
def start_api(tmp_path: Path) -> Iterator[Callable[..., Api]]:
    running: list[Api] = []

    def start(**options: Any) -> Api:
        running.append(Api(tmp_path, **options))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def api(start_api: Callable[..., Api]) -> Api:
    return start_api()
