"""The topics that Quix keeps state in and regroups through, made as the shop makes its own."""

import logging
import time
from typing import Any

from confluent_kafka import KafkaError as Code
from confluent_kafka import KafkaException

from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection, silent
from shop.kafka.errors import TopicMissing
from shop.kafka.topic import Topic
from shop.kafka.wire import Headers
from shop.streams.quix import QuixTopic, TopicAdmin, TopicConfig

log = logging.getLogger(__name__)


class InternalTopics(TopicAdmin):
    """Quix asks it for topics that are missing. Only those of its own are made."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(
            connection.address(), logger=silent, extra_config=connection.client_config("admin")
        )
        self._connection = connection
        self._made: set[str] = set()

    def create_topics(
        self, topics: list[QuixTopic], timeout: float = 30, finalize_timeout: float = 60
    ) -> None:
        missing = [topic.name for topic in topics if topic.is_regular]
        if missing:
            raise TopicMissing(f"topic {', '.join(missing)} does not exist")
        for name in create_topics(self._connection, [_declared(t) for t in topics], timeout):
            log.info("created %s", name)
        self._made |= {topic.name for topic in topics}

    def inspect_topics(
        self, topic_names: list[str], timeout: float = 30
    ) -> dict[str, TopicConfig | None]:
        """Waits at most `timeout` seconds for those that were made: for a moment after the
        controller did, the broker that answers may not know them."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                found = super().inspect_topics(topic_names, timeout)
                missing = [name for name in topic_names if name in self._made and not found[name]]
                if not missing or time.monotonic() > deadline:
                    return found
            except KafkaException as error:  # one broker knows it, and another one does not
                unknown = error.args[0].code() == Code.UNKNOWN_TOPIC_OR_PART
                if not unknown or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)


def _declared(topic: QuixTopic) -> Topic[bytes]:
    wanted = topic.create_config
    assert wanted is not None
    assert wanted.num_partitions is not None
    return Topic(topic.name, _Bytes(), partitions=wanted.num_partitions, config=wanted.extra_config)


class _Bytes:
    """What Quix wrote, as it is."""

    event_type: Any = bytes
    fixed_headers: Headers = []  # noqa: RUF012  # as the protocol says it
    carries_correlation_id = False

    def encode(self, event: bytes, correlation_id: str) -> bytes:
        return event

    def decode(self, value: bytes | None) -> tuple[bytes, str | None]:
        return value or b"", None
