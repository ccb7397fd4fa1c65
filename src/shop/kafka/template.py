"""Sending: a template shared by all threads, its producer made and checked when it is built."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import msgspec
from confluent_kafka import KafkaError as Code
from confluent_kafka import KafkaException

from shop.kafka import correlation
from shop.kafka.connection import Connection, Producer, Reachability, silent
from shop.kafka.errors import KafkaError, SendFailed
from shop.kafka.lost import ANSWER_S, Lost
from shop.kafka.outbound import OutboundRecord, outbound
from shop.kafka.topic import Topic

log = logging.getLogger(__name__)

E = TypeVar("E")
Acks = Literal["all", "1", "0"]

# Of requests to a broker. With more, a record that is refused (its partition has no leader yet) is
# taken for sent as soon as the broker accepts one behind it: docs/decisions/0019.
IN_FLIGHT = 1
# What it then says in the place of success: no offset.
_PASSED_OVER = Code(Code._STATE, "the client told no offset of it, so it may not be in the log")
PROBE_S = 3.0
LARGEST = 10_000_000  # bytes; what a topic takes is the broker's to say, by topic


class SendResult(msgspec.Struct, frozen=True):
    """Where a record lies. With acks=0 the broker tells no offset: it is -1.

    `timestamp` is in milliseconds since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class KafkaTemplate:
    """Sends events; thread-safe. Idempotent with acks="all": no record twice by a retry, and in
    order. With "1" or "0" a record may be lost with a broker, or doubled.

    `linger_ms`: how long a record may wait for company. A record is tried for `timeout_s` (0: for
    ever); then its send fails. A background thread serves acknowledgements. `failure` is set when
    the producer met an error after which it can never send again: end the process then.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        acks: Acks = "all",
        linger_ms: float = 0,
        timeout_s: float = 30,
        name: str = "template",
    ) -> None:
        self._connection = connection
        self._reachability = Reachability(name)
        config: dict[str, Any] = connection.client_config(name) | {
            "acks": acks,
            "enable.idempotence": acks == "all",
            "max.in.flight": IN_FLIGHT,
            "linger.ms": linger_ms,
            "message.timeout.ms": round(timeout_s * 1000),
            "compression.type": "lz4",
            "message.max.bytes": LARGEST,
        }
        self._config = config
        self._acks = acks
        self._timeout = timeout_s or None
        self._lost = Lost(connection)
        self._replacing = threading.RLock()  # held while a record is queued; callbacks may queue
        self._producer = self._made()
        self.failure: KafkaError | None = None
        self._closed = threading.Event()
        self._poller = threading.Thread(target=self._serve, name=f"{name}-acks", daemon=True)
        self._poller.start()

    def send(
        self, topic: Topic[E], key: str | None, event: E, *, correlation_id: str | None = None
    ) -> SendResult:
        """Send and wait for the acknowledgement that `acks` asks for. Raises SendFailed."""
        return self.send_async(topic, key, event, correlation_id=correlation_id).result()

    def send_async(
        self,
        topic: Topic[E],
        key: str | None,
        event: E,
        *,
        correlation_id: str | None = None,
        callback: Callable[["Future[SendResult]"], None] | None = None,
    ) -> "Future[SendResult]":
        """Queue the event; the future ends with a SendResult or SendFailed.

        `callback` runs in the template's own thread: it must not block."""
        return self._queue(
            outbound(
                topic,
                key,
                event,
                correlation_id=correlation_id or correlation.begin("KafkaTemplate"),
            ),
            callback,
        )

    def send_record(self, record: OutboundRecord) -> SendResult:
        """Send a record as it is and wait, as `send` does. Raises SendFailed."""
        return self._queue(record, None).result()

    def _queue(
        self, record: OutboundRecord, callback: Callable[["Future[SendResult]"], None] | None
    ) -> "Future[SendResult]":
        future: Future[SendResult] = Future()
        if callback is not None:
            future.add_done_callback(callback)

        def delivered(error: Code | None, message: Any) -> None:
            self._settle(future, record.topic, error, message)

        self.publish(record, delivered)
        return future

    def publish(
        self, record: OutboundRecord, on_delivery: Callable[[Code | None, Any], None]
    ) -> None:
        """Queue a record as it is. `on_delivery(error, message)` as librdkafka calls it, from the
        template's thread or the next publisher's; it must not raise. Raises SendFailed when the
        record cannot be queued."""
        if self.failure is not None:
            raise SendFailed(str(self.failure))

        def delivered(error: Code | None, message: Any) -> None:
            if error is None:
                self._reachability.answered()
                if self._acks == "all" and message.offset() is None:
                    error = _PASSED_OVER
            on_delivery(error, message)

        try:
            with self._replacing:
                self._producer.produce(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    headers=record.headers,
                    on_delivery=delivered,
                )
        except (KafkaException, BufferError) as error:
            code = error.args[0] if isinstance(error, KafkaException) else None
            if code is not None and code.fatal():
                self._fail(error)
            raise SendFailed(_refusal(record.topic, code or error), code) from None

    def flush(self, timeout: float) -> int:
        """Wait at most `timeout` s until all is acknowledged; how many records are not yet."""
        return self._producer.flush(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Flush for at most `timeout` seconds and stop serving acknowledgements."""
        self.flush(timeout)
        self._closed.set()
        self._poller.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def broker_down(self) -> bool:
        """Whether no broker could be reached when one was last needed."""
        return self._reachability.down

    def _serve(self) -> None:
        probe_due = 0.0
        while not self._closed.is_set():
            try:
                self._producer.poll(0.1)
            except KafkaException as error:  # librdkafka's fatal errors come out here
                self._fail(error)
                return
            if self._reachability.down and time.monotonic() > probe_due:
                self._probe()
                probe_due = time.monotonic() + PROBE_S

    def _probe(self) -> None:
        """A template that has nothing to send is not told that the brokers are back."""
        if self._reaches_brokers():
            self._lost.found()
            self._reachability.answered()
        elif self._lost.seems_so():
            self._replace()

    def _reaches_brokers(self) -> bool:
        try:
            self._producer._producer.list_topics(timeout=ANSWER_S)  # Quix has no other way to it
        except KafkaException:
            return False
        return True

    def _made(self) -> Producer:
        producer = Producer(
            self._connection.address(),
            logger=silent,
            error_callback=self._reachability.failed,
            extra_config=self._config,
            flush_timeout=self._timeout,
        )
        producer.poll(0)  # Quix builds its client at first use and without a lock: now
        return producer

    def _replace(self) -> None:
        """A new producer. What the old one had in hand fails, as at the end of its time; a broker
        may have it all the same, so who sends it again sends it under the same event id."""
        log.warning(
            "a producer has lost all its brokers, though they answer others; going on with a new "
            "one, what it had in hand is to be sent again"
        )
        with self._replacing:
            old, self._producer = self._producer, self._made()
        old.purge()  # type: ignore[no-untyped-call]
        old.flush(ANSWER_S)  # serves the callbacks of what was purged
        self._lost.found()
        self._reachability.answered()

    def _fail(self, error: Exception) -> None:
        """Nothing can be sent by this producer any more; only a new one can."""
        self.failure = KafkaError(f"the producer cannot go on: {error.args[0]}")
        log.error("%s", self.failure)

    def _settle(
        self, future: "Future[SendResult]", topic: str, error: Code | None, message: Any
    ) -> None:
        if not future.set_running_or_notify_cancel():
            return  # nobody wants to know any more
        if error is not None:
            future.set_exception(SendFailed(_refusal(topic, error), error))
            return
        offset = message.offset()
        future.set_result(
            SendResult(
                message.topic(),
                message.partition(),
                -1 if offset is None else offset,
                message.timestamp()[1],
            )
        )


def _refusal(topic: str, error: Any) -> str:
    if isinstance(error, Code) and error.code() in (
        Code.UNKNOWN_TOPIC_OR_PART,
        Code._UNKNOWN_TOPIC,
    ):
        return f"topic {topic} does not exist; create it first"
    text = error.str() if isinstance(error, Code) else str(error)
    return f"a record for {topic} could not be sent: {text}"
