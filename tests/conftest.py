"""One Apache Kafka per test run, shared; every test takes topics of its own names."""

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


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """A connection to a real broker."""
    directory: Path = tmp_path_factory.mktemp("kafka")
    broker = EmbeddedKafka(directory, port=free_port(), fast=True)
    broker.start()
    yield Connection(broker.bootstrap_servers)
    broker.stop()


@pytest.fixture
def make_topic(kafka: Connection) -> Callable[..., Topic[Any]]:
    """make_topic(codec, partitions=1): a new topic that only this test knows."""

    def make(codec: Codec[E], partitions: int = 1, name: str = "T") -> Topic[E]:
        topic = Topic(f"{name}-{uuid4().hex[:8]}", codec, partitions=partitions)
        create_topics(kafka, [topic])
        return topic

    return make
