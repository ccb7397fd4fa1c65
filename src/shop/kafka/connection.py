"""How clients reach Kafka: one configuration for all, checked at start, quiet afterwards."""

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError as Code
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata

from shop.kafka.errors import BrokerUnreachable
from shop.kafka.quix import ConnectionConfig, Consumer, Producer

__all__ = ["Connection", "Consumer", "Producer"]

log = logging.getLogger(__name__)

_CAUSES = {
    Code._TRANSPORT: "nothing answers there",
    Code._RESOLVE: "the name cannot be resolved",
    Code._BAD_MSG: "what answers there is not Kafka",
    Code._AUTHENTICATION: "it refused the credentials",
    Code._SSL: "TLS could not be agreed on",
}


@dataclass(frozen=True)
class Connection:
    """Where the brokers are and how to speak to them. Immutable, shared by all clients.

    `security` holds librdkafka's own names, e.g. {"security.protocol": "SASL_SSL", …}.
    """

    bootstrap_servers: str
    security: Mapping[str, str] = field(default_factory=dict)
    client_id: str = "shop"

    def client_config(self, name: str) -> dict[str, Any]:
        """What every client has in common, as `extra_config` of the Quix clients."""
        return {
            **self.security,
            "client.id": f"{self.client_id}-{name}",
            "allow.auto.create.topics": False,
            "reconnect.backoff.max.ms": 1000,
            "log.connection.close": False,
            "socket.nagle.disable": True,
            # How soon it is noticed that a broker is there and answers nothing.
            "socket.timeout.ms": 20_000,
            "statistics.interval.ms": 0,
        }

    def address(self) -> ConnectionConfig:
        return ConnectionConfig(bootstrap_servers=self.bootstrap_servers)

    def admin(self, on_error: Callable[[Code], None] | None = None) -> AdminClient:
        """An admin client. Keep the object while its futures are awaited."""
        config = self.client_config("admin") | {"bootstrap.servers": self.bootstrap_servers}
        return AdminClient(config | {"error_cb": on_error or (lambda _: None)}, logger=silent)

    def reader(self) -> Consumer:
        """A consumer that belongs to no group: for looking at topics. Close it."""
        return Consumer(
            self.address(), "shop-reader", "earliest", auto_commit_enable=False, logger=silent,
            error_callback=lambda _: None, extra_config=self.client_config("reader"),
        )  # fmt: skip

    def metadata(self, timeout: float = 8.0) -> ClusterMetadata:
        """Brokers, topics and partitions. Raises BrokerUnreachable, with the cause, unless a
        broker answers within `timeout` seconds."""
        causes: list[int] = []
        admin = self.admin(on_error=lambda error: causes.append(error.code()))
        try:
            return admin.list_topics(timeout=timeout)
        except KafkaException as error:
            admin.poll(0)  # serves the error callbacks
            known = [code for code in causes if code in _CAUSES]
            why = _CAUSES[known[0]] if known else error.args[0].str()
            raise BrokerUnreachable(f"no Kafka broker at {self.bootstrap_servers}: {why}") from None


silent = logging.getLogger("shop.kafka.librdkafka.silent")
silent.addHandler(logging.NullHandler())
silent.propagate = False


CALM_S = 1.0  # without an error
UNREACHABLE = (Code._ALL_BROKERS_DOWN, Code._AUTHENTICATION, Code._SSL)


_down: "weakref.WeakSet[Reachability]" = weakref.WeakSet()  # of this process; under _changing
_changing = threading.Lock()


class Reachability:
    """Whether a client, or one of a group's, reaches brokers, by its error callbacks. `clock` gives
    seconds. The log has one line when the first client of the process reaches none any more, and
    one when the last of them does again.

    librdkafka repeats an error for every broker and attempt, and what was fetched before still
    comes after it; so brokers are back when no error came for CALM_S. Thread-safe.
    """

    def __init__(self, client: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._failed_at = 0.0
        self._down_since = 0.0
        self.down = False

    @property
    def down_for(self) -> float:
        """Seconds; 0 when brokers can be reached."""
        return self._clock() - self._down_since if self.down else 0.0

    def failed(self, error: Code) -> None:
        """librdkafka's error_cb."""
        if error.code() not in UNREACHABLE:
            log.debug("%s: %s", self._client, error.str())
            return
        with _changing:
            self._failed_at = self._clock()
            first = not _down
            if not self.down:
                self.down, self._down_since = True, self._failed_at
                _down.add(self)
        if first:
            log.warning("%s: no broker can be reached; trying on (%s)", self._client, error.str())

    def answered(self) -> None:
        """To be called when a broker gave a sign of life."""
        if self.down and self._clock() - self._failed_at >= CALM_S:
            with _changing:
                last = self.down and len(_down) == 1
                self.down = False
                _down.discard(self)
            if last:
                log.info("brokers are back")


def client_name(purpose: str) -> str:
    return f"{purpose}-{os.getpid()}"
