"""From a record as polled to a call of its listener."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

from shop.kafka import spans
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.errors import Fenced, KafkaError, StoreUnavailable, WireError
from shop.kafka.ids import derived_id
from shop.kafka.listener import Endpoint, every_record
from shop.kafka.store import Partition
from shop.kafka.tracing import recorded
from shop.kafka.wire import Message, received_ids, redriven_to

_UNTRACED: AbstractContextManager[None] = nullcontext()
LONGEST_IDENTITY = 600  # characters; PostgreSQL's index entries end at 2,700 bytes

current_message: ContextVar[Message[Any] | None] = ContextVar("kafka_message", default=None)


class Record(NamedTuple):
    """A record as polled, not yet decoded."""

    partition: Partition
    offset: int
    raw: Any  # confluent_kafka.Message


class NotAcknowledged(KafkaError):
    """A listener said nothing or nack. `delay`: seconds until redelivery, None for the default."""

    def __init__(self, delay: float | None) -> None:
        super().__init__("not acknowledged")
        self.delay = delay


class Stopping(KafkaError):
    """The consumer was asked to stop while a batch was in hand; it is rolled back."""


class RecordFailed(KafkaError):
    """What is wrong with one record of a batch: the one at `index`, its `error` as raised."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(str(error))
        self.index = index
        self.error = error


class Incoming(NamedTuple):
    """A decoded record with the listener it goes to. `identity` says which effect it has, and is
    the receipt for it unless every record counts."""

    endpoint: Endpoint
    message: Message[Any]
    identity: str
    receipt: str | None


class Dispatcher:
    """Decodes the records of a group and calls its listeners. As thread-safe as they are."""

    def __init__(self, group: str, endpoints: Sequence[Endpoint]) -> None:
        self.group = group
        self.holds_back = any(e.declaration.hold_back for e in endpoints)
        self._endpoints = endpoints
        self._routes: dict[str, tuple[Endpoint, Any]] = {}

    def decode_all(self, records: Sequence[Record]) -> list[Incoming | None]:
        """As `decode`. Raises RecordFailed for the first that cannot be decoded."""
        return [self.decode_at(index, record) for index, record in enumerate(records)]

    def decode_at(self, index: int, record: Record) -> Incoming | None:
        """As `decode`, of the record at `index` of its batch. Raises RecordFailed."""
        try:
            return self.decode(record)
        except Exception as error:
            spans.unreadable(record.raw, self.group, error)
            raise RecordFailed(index, error) from error

    def decode(self, record: Record) -> Incoming | None:
        """None for a record that is redriven to another group. Raises WireError for what its topic
        does not carry."""
        topic, partition = record.partition
        endpoint, codec = self._routes.get(topic) or self._route(topic)
        raw = record.raw
        headers = raw.headers() or []
        try:
            event, correlation_id = codec.decode(raw.value())
        except WireError:
            if self._is_for_others(endpoint, redriven_to(headers)):
                return None
            raise
        event_id, correlation_id, traceparent, redrive_to = received_ids(
            headers, correlation_id, topic, partition, record.offset
        )
        if self._is_for_others(endpoint, redrive_to):
            return None
        key = raw.key()
        message = Message(
            event,
            None if key is None else key.decode("utf-8", "backslashreplace"),
            topic,
            partition,
            record.offset,
            raw.timestamp()[1],
            event_id,
            correlation_id,
            traceparent,
            headers,
            key,
        )
        once = endpoint.declaration.once
        identity = event_id if once is None else f"{topic}:{once(message)}"
        if len(identity) > LONGEST_IDENTITY or "\0" in identity:  # no database takes any text
            identity = derived_id("", identity)
        return Incoming(endpoint, message, identity, None if once is every_record else identity)

    def _is_for_others(self, endpoint: Endpoint, redrive_to: str | None) -> bool:
        return redrive_to not in (None, self.group) and not endpoint.declaration.observer

    def call(self, index: int, incoming: Incoming, work: Any) -> None:
        """Call the listener of the record at `index` of its batch. Raises RecordFailed with what
        it raises, or with NotAcknowledged; but not what says that the store is away."""
        try:
            self._call(incoming.endpoint, incoming.message, work)
        except (Fenced, StoreUnavailable):
            raise
        except Exception as error:
            raise RecordFailed(index, error) from error

    def _call(self, endpoint: Endpoint, message: Message[Any], work: Any) -> None:
        current_message.set(message)
        ack = Acknowledgment()
        traced = recorded(message.traceparent)
        with spans.process(message, self.group) if traced else _UNTRACED:
            if not endpoint(message, work, ack):
                raise NotAcknowledged(ack.delay)

    def repeated(self, incoming: Incoming) -> None:
        """This one was handled before: it leaves its mark in the trace only."""
        spans.duplicate(incoming.message, self.group)

    def endpoint_of(self, topic: str) -> Endpoint:
        endpoint, _ = self._routes.get(topic) or self._route(topic)
        return endpoint

    def _route(self, topic: str) -> tuple[Endpoint, Any]:
        for endpoint in self._endpoints:
            source = endpoint.source_of(topic)
            if source is not None:
                return self._routes.setdefault(topic, (endpoint, source.codec))
        raise KafkaError(f"group {self.group} has no listener for topic {topic}")
