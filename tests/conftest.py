"""One Apache Kafka per test run, shared; every test takes topics of its own names."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from shop.broker import EmbeddedKafka, free_port
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.topic import Topic
from shop.kafka.wire import Codec

E = TypeVar("E")


_shared = pytest.StashKey[EmbeddedKafka]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Of pytest-xdist: its workers share the broker of the process that runs them."""
    stash = node.config.stash
    if _shared not in stash:
        stash[_shared] = _started(Path(tempfile.mkdtemp(prefix="shop-kafka-")))
    node.workerinput["kafka"] = stash[_shared].bootstrap_servers


def pytest_unconfigure(config: pytest.Config) -> None:
    broker = config.stash.get(_shared, None)
    if broker is not None:
        broker.stop()
        shutil.rmtree(broker.directory)


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


@pytest.fixture
def make_topic(kafka: Connection) -> Callable[..., Topic[Any]]:
    """make_topic(codec, partitions=1): a new topic that only this test knows."""

    def make(codec: Codec[E], partitions: int = 1, name: str = "T") -> Topic[E]:
        topic = Topic(f"{name}-{uuid4().hex[:8]}", codec, partitions=partitions)
        create_topics(kafka, [topic])
        return topic

    return make
