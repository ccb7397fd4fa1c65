"""Handling records so that they count, in ways that differ in what remembers it and when.

`Transactional`: the listeners' effects, receipts and positions become true together.
`External`: the effect is outside; each record is settled right after it, by itself.
`Repeatable`: the effect is outside and may be repeated; a batch is settled as one, after it.
`Plain`: no store; Kafka remembers the contiguous prefix, at least once.
"""

import threading
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

from shop.kafka import tracing
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.errors import KafkaError
from shop.kafka.ids import derived_id
from shop.kafka.listener import Endpoint, every_record
from shop.kafka.positions import Positions
from shop.kafka.store import BatchTransaction, Partition, Store
from shop.kafka.wire import Message, received_ids

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
        self._endpoints = endpoints
        self._routes: dict[str, tuple[Endpoint, Any]] = {}

    def decode(self, record: Record) -> Incoming:
        """Raises WireError for what its topic does not carry."""
        topic, partition = record.partition
        route = self._routes.get(topic) or self._route(topic)
        endpoint, codec = route
        raw = record.raw
        headers = raw.headers() or []
        event, correlation_id = codec.decode(raw.value())
        event_id, correlation_id, traceparent = received_ids(
            headers, correlation_id, topic, partition, record.offset
        )
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

    def call(self, incoming: Incoming, work: Any) -> None:
        """Call the listener. Raises what it raises, or NotAcknowledged."""
        endpoint, message = incoming.endpoint, incoming.message
        current_message.set(message)
        ack = Acknowledgment()
        if tracing.sampled(message.traceparent):
            with tracing.process(message, self.group):
                handled = endpoint(message, work, ack)
        else:
            handled = endpoint(message, work, ack)
        if not handled:
            raise NotAcknowledged(ack.delay)

    def _route(self, topic: str) -> tuple[Endpoint, Any]:
        for endpoint in self._endpoints:
            source = endpoint.source_of(topic)
            if source is not None:
                return self._routes.setdefault(topic, (endpoint, source.codec))
        raise KafkaError(f"group {self.group} has no listener for topic {topic}")


class Settlement(Protocol):
    atomic: bool  # whether a batch that fails leaves nothing handled

    def settle(
        self, records: Sequence[Record], positions: Positions, stopping: threading.Event
    ) -> None:
        """Handle the records, and move `positions` over exactly those that are handled: all of
        them, unless `stopping` is set, which is looked at before each call of a listener.

        Raises what a listener raises, WireError, NotAcknowledged, Fenced, StoreUnavailable."""


class Transactional:
    atomic = True

    def __init__(self, dispatcher: Dispatcher, store: Store) -> None:
        self._dispatcher = dispatcher
        self._store = store

    def settle(
        self, records: Sequence[Record], positions: Positions, stopping: threading.Event
    ) -> None:
        moves = positions.moves((r.partition, r.offset) for r in records)
        incoming = [self._dispatcher.decode(record) for record in records]
        call = self._dispatcher.call
        with self._store.transaction(self._dispatcher.group, moves) as transaction:
            fresh = _claimed(transaction, incoming)
            for item in incoming:
                if stopping.is_set():
                    raise Stopping
                if item.receipt is None or item.receipt in fresh:
                    fresh.discard(item.receipt)  # a second one in the same batch is a repeat
                    work = None
                    if item.endpoint.wants_work:
                        work = transaction.work(item.message, item.identity, item.endpoint.title)
                    call(item, work)
        positions.advance(moves)


class External:
    atomic = False

    def __init__(self, dispatcher: Dispatcher, store: Store) -> None:
        self._dispatcher = dispatcher
        self._store = store

    def settle(
        self, records: Sequence[Record], positions: Positions, stopping: threading.Event
    ) -> None:
        group = self._dispatcher.group
        for record in records:
            if stopping.is_set():
                return
            moves = positions.moves([(record.partition, record.offset)])
            incoming = self._dispatcher.decode(record)
            if not _seen(self._store, group, [incoming]):
                self._dispatcher.call(incoming, None)
            with self._store.transaction(group, moves) as transaction:
                _claimed(transaction, [incoming])
            positions.advance(moves)


class Repeatable:
    atomic = True  # what was done of a batch that failed is done again

    def __init__(self, dispatcher: Dispatcher, store: Store) -> None:
        self._dispatcher = dispatcher
        self._store = store

    def settle(
        self, records: Sequence[Record], positions: Positions, stopping: threading.Event
    ) -> None:
        group = self._dispatcher.group
        moves = positions.moves((r.partition, r.offset) for r in records)
        incoming = [self._dispatcher.decode(record) for record in records]
        known = _seen(self._store, group, incoming)
        notes: dict[str, Any] = {}
        for item in incoming:
            if stopping.is_set():
                raise Stopping
            if item.receipt not in known and item.identity not in notes:
                work = self._store.notes(group, item.message, item.identity, item.endpoint.title)
                self._dispatcher.call(item, work)
                notes[item.identity] = work
        with self._store.transaction(group, moves) as transaction:
            fresh = _claimed(transaction, incoming)
            for item in incoming:
                if (item.receipt is None or item.receipt in fresh) and item.identity in notes:
                    transaction.accept(notes.pop(item.identity))
        positions.advance(moves)


class Plain:
    atomic = False

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def settle(
        self, records: Sequence[Record], positions: Positions, stopping: threading.Event
    ) -> None:
        handled = 0
        try:
            for record in records:
                if stopping.is_set():
                    return
                self._dispatcher.call(self._dispatcher.decode(record), None)
                handled += 1
        finally:
            done = [(r.partition, r.offset) for r in records[:handled]]
            positions.advance(positions.moves(done))


def _claimed(transaction: BatchTransaction, incoming: Sequence[Incoming]) -> set[str | None]:
    """The receipts that are new, of those records that have one."""
    receipts = [item.receipt for item in incoming if item.receipt is not None]
    return {*transaction.claim(receipts)} if receipts else set()


def _seen(store: Store, group: str, incoming: Sequence[Incoming]) -> set[str | None]:
    receipts = [item.receipt for item in incoming if item.receipt is not None]
    return {*store.seen(group, receipts)} if receipts else set()
