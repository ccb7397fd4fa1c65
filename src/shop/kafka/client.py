"""The client of a group's member: Quix's consumer, and a new one where it can never come back."""

import logging
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError as Code
from confluent_kafka import KafkaException

from shop.kafka.connection import UNREACHABLE, Connection, Consumer, Reachability, silent
from shop.kafka.errors import KafkaError
from shop.kafka.lost import ANSWER_S, Lost
from shop.kafka.quix import QuixException

log = logging.getLogger(__name__)


class GroupClient:
    """Used by one thread. `consumer` is another one after `replace`, and holds no partitions."""

    def __init__(
        self,
        connection: Connection,
        group: str,
        topics: Sequence[str],
        reachability: Reachability,
        *,
        name: str,
        extra_config: Mapping[str, Any],
    ) -> None:
        self._connection = connection
        self._group = group
        self._topics = list(topics)
        self._reachability = reachability
        self._config = connection.client_config(name) | dict(extra_config)
        self._callbacks: Mapping[str, Callable[..., None]] = {}
        self._lost = Lost(connection)
        self.id = str(self._config["client.id"])
        self.consumer = self._made()
        self.down = False  # and so to be probed; others of the group may reach brokers

    def subscribe(self, **callbacks: Callable[..., None]) -> None:
        """As Quix's consumer, to the group's topics."""
        self._callbacks = callbacks
        self.consumer.subscribe(self._topics, **callbacks)

    def consume(self, count: int, timeout: float) -> list[Any]:
        """Raises KafkaError with the cause: Quix wraps what a rebalance callback raised, and
        librdkafka's fatal errors are raised from here."""
        try:
            return list(self.consumer.consume(count, timeout))
        except QuixException as error:
            cause = error.__cause__ or error
            raise KafkaError(f"group {self._group}: {type(cause).__name__}: {cause}") from error
        except KafkaException as error:
            raise KafkaError(f"group {self._group}: {error.args[0].str()}") from error

    def answered(self) -> None:
        """To be called when a broker gave a sign of life."""
        self._reachability.answered()
        self.down = self.down and self._reachability.down  # it waits until no more errors come

    def topics_there(self) -> Container[str] | None:
        try:
            return list(self.consumer.list_topics(timeout=ANSWER_S).topics)
        except KafkaException:
            return None

    def probe(self) -> bool:
        """To be called now and then while it is down, since an idle consumer is not told that the
        brokers are back. Whether it never will be, and is to be replaced."""
        if self.topics_there() is not None:
            self._lost.found()
            self.answered()
            return False
        return self._lost.seems_so()

    def replace(self) -> None:
        """A new consumer, subscribed as the old one. That one ends without leaving the group, which
        it cannot reach: its partitions are free when its session has timed out."""
        log.warning(
            "group %s: a client has lost all its brokers, though they answer others; going on with "
            "a new one",
            self._group,
        )
        old, self.consumer = self.consumer, self._made()
        threading.Thread(target=_end, args=(old,), name="lost-client", daemon=True).start()
        self._lost.found()
        self.answered()
        self.subscribe(**self._callbacks)

    def _made(self) -> Consumer:
        return Consumer(
            self._connection.address(),
            self._group,
            # Always: the reset is done by the group, so that a lost position is never skipped over.
            "error",
            auto_commit_enable=False,
            logger=silent,
            error_callback=self._failed,
            extra_config=self._config,
        )

    def _failed(self, error: Code) -> None:
        if error.code() in UNREACHABLE:
            self.down = True
        self._reachability.failed(error)


def _end(consumer: Consumer) -> None:
    """End a lost client. librdkafka may first wait, as long as a session or longer, for an answer
    that never comes, and the group cannot wait with it. No callback of the old client is called."""
    # Quix's object and the client in it hold one another, and may be frozen (gc.freeze): no
    # collection would end the client, and it would go on heartbeating.
    consumer._inner_consumer = None
