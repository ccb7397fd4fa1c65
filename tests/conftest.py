"""One Apache Kafka and one PostgreSQL per test run, shared; every test takes topics of its own
names, and a database of its own."""

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from shop.broker import EmbeddedKafka, free_port
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.topic import Topic
from shop.kafka.wire import Codec
from tests.backends import BACKENDS, URL, Backend
from tests.postgres import PostgresDatabase, PostgresServer

E = TypeVar("E")


_shared = pytest.StashKey[EmbeddedKafka]()
_shared_postgres = pytest.StashKey[PostgresServer]()


def pytest_configure() -> None:
    """A run in the background of a script ignores Ctrl-C, and what it starts would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Of pytest-xdist: its workers share the servers of the process that runs them."""
    stash = node.config.stash
    if _shared not in stash:
        stash[_shared] = _started(Path(tempfile.mkdtemp(prefix="shop-kafka-")))
        stash[_shared_postgres] = PostgresServer()
    node.workerinput["kafka"] = stash[_shared].bootstrap_servers
    node.workerinput["postgres"] = stash[_shared_postgres].url


def pytest_unconfigure(config: pytest.Config) -> None:
    broker = config.stash.get(_shared, None)
    if broker is not None:
        broker.stop()
        shutil.rmtree(broker.directory)
    postgres = config.stash.get(_shared_postgres, None)
    if postgres is not None:
        postgres.remove()


@pytest.fixture(scope="session")
def kafka(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Connection]:
    """A connection to a real broker."""
    given = getattr(request.config, "workerinput", {}).get("kafka")
    if given is not None:
        yield Connection(given)
        return
    broker = _started(tmp_path_factory.mktemp("kafka"))
    yield Connection(broker.bootstrap_servers)
    broker.stop()


def _started(directory: Path) -> EmbeddedKafka:
    broker = EmbeddedKafka(directory, port=free_port(), fast=True)
    broker.start()
    return broker


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[str]:
    """The superuser's URL of a real PostgreSQL."""
    given = getattr(request.config, "workerinput", {}).get("postgres")
    if given is not None:
        yield given
        return
    server = PostgresServer()
    yield server.url
    server.remove()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """Lets a test run twice: its databases are SQLite files, and then on PostgreSQL."""
    with _backend(request, monkeypatch) as backend:
        yield backend


@pytest.fixture(scope="module", params=BACKENDS)
def shared_backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """As `backend`, for what the tests of a module share."""
    with pytest.MonkeyPatch.context() as patch, _backend(request, patch) as backend:
        yield backend


@contextmanager
def _backend(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Iterator[Backend]:
    if request.param == "sqlite":
        patch.delenv(URL, raising=False)
        yield Backend(None)
        return
    postgres = PostgresDatabase(request.getfixturevalue("postgres"))
    patch.setenv(URL, postgres.url)
    yield Backend(postgres)
    postgres.drop()


@pytest.fixture
def make_topic(kafka: Connection) -> Callable[..., Topic[Any]]:
    """make_topic(codec, partitions=1): a new topic that only this test knows."""

    def make(codec: Codec[E], partitions: int = 1, name: str = "T") -> Topic[E]:
        topic = Topic(f"{name}-{uuid4().hex[:8]}", codec, partitions=partitions)
        create_topics(kafka, [topic])
        return topic

    return make
