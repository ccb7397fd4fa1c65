"""Running listeners in a test: `listen(function_or_object, …)` starts a container that is stopped
at the test's end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from shop.db.database import Database
from shop.db.store import DatabaseStore
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.listener import ListenerRegistry
from shop.kafka.retry import Backoff, Retry
from shop.kafka.template import KafkaTemplate
from tests.backends import Backend
from tests.commands import ShopPlace


@pytest.fixture(scope="session")
def template(kafka: Connection) -> Iterator[KafkaTemplate]:
    with KafkaTemplate(kafka) as template:
        yield template


@pytest.fixture
def group() -> str:
    return f"group-{uuid4().hex[:8]}"


@pytest.fixture
def database(backend: Backend, tmp_path: Path) -> Iterator[Database]:
    """A database with the fraud service's schema, so that there is a table to write to."""
    database = backend.open("fraud", tmp_path)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> DatabaseStore:
    return DatabaseStore(database)


@pytest.fixture
def listen(kafka: Connection) -> Iterator[Callable[..., ListenerContainer]]:
    started: list[ListenerContainer] = []

    def start(service: Any, **options: Any) -> ListenerContainer:
        registry = ListenerRegistry()
        registry.add(service)
        (group,) = registry.groups
        store = options.get("store")
        options.setdefault("retry", Retry(backoff=Backoff(first=0.02, longest=0.1)))
        options.setdefault("session_timeout_ms", 6000)
        container = ListenerContainer(
            kafka, group, registry.endpoints(group, store.work_type if store else None), **options
        )
        container.start()
        started.append(container)
        return container

    yield start
    for container in started:
        container.ask_to_stop()
    for container in started:
        container.stop(timeout=60)


@pytest.fixture(scope="session")
def shop_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopPlace]:
    """A broker with the shop's own topics, and a data directory: for commands."""
    place = ShopPlace(tmp_path_factory.mktemp("place"))
    yield place
    place.close()
