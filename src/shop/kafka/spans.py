"""The spans of a group: of each record that somebody samples, and of the batch that it came in.

A record's process span is a child of its send span, so that all that comes of one event is one
trace. What concerns many records at once, the poll and the commit of a batch, is a trace of its
own: linked with each record's send span, and from each process span.
"""

import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from opentelemetry import context, trace

from shop.kafka.tracing import SCOPE, recorded, sender_of, sender_of_message, traceparent_of
from shop.kafka.wire import Message
from shop.tracing.begin import begin_here, failed, linking
from shop.tracing.remote import Remote, Shared

OUTCOME = "listener.outcome"  # of a process span: handled, duplicate, failed or rolled back
ATTEMPT = "listener.attempt"  # which one it is, from the second on


class Batch:
    """The spans of the records that were polled together. They end with the batch, since only then
    it is known whether what their listeners did came true. For one thread.

    `polled`: when the poll began and ended, in nanoseconds since the epoch. `atomic`: whether all
    is undone when one record fails. `attempt_of(topic, partition, offset)`: 1 for the first."""

    def __init__(
        self,
        group: str,
        client_id: str,
        polled: tuple[int, int],
        count: int,
        topics: Callable[[], set[str]],
        attempt_of: Callable[[str, int, int], int],
        *,
        atomic: bool,
    ) -> None:
        self.attempt_of = attempt_of
        self.client_id = client_id
        self.begin = begin_here(SCOPE)
        self._group = group
        self._polled = polled
        self._count = count
        self._topics = topics
        self._atomic = atomic
        self._poll: trace.Span | None = None
        self._links: tuple[trace.Link, ...] = ()  # with the poll, where that is sampled
        self._link_poll: Callable[[Remote], None] | None = None
        self._handled: deque[tuple[trace.Span, int]] = deque()

    def __enter__(self) -> None:
        self._token = _batch.set(self)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        _batch.reset(self._token)
        undone = error is not None and self._atomic
        began = self._polled[1]  # of the commit
        while self._handled:  # and each span is let go at once
            span, began = self._handled.popleft()
            span.set_attribute(OUTCOME, "rolled back" if undone else "handled")
            span.end(began)
        if self._poll is not None and self._poll.is_recording():
            commit = self.begin(
                f"commit {self._group}",
                self._poll,
                trace.SpanKind.INTERNAL,
                _of_group("commit", "settle", self._group, self.client_id),
                {},
                start_time=began,
            )
            if isinstance(error, Exception):
                failed(commit, error)
            commit.end()
            self._poll.end(self._polled[1])

    def link_of(self, sender: Remote | None) -> tuple[trace.Link, ...]:
        """A link to the poll of this batch, which from now on is linked with the sender."""
        if self._poll is None:
            self._begin_poll()
        if self._link_poll is not None and sender is not None:
            self._link_poll(sender)
        return self._links

    def _begin_poll(self) -> None:
        own: dict[str, Any] = {"messaging.batch.message_count": self._count}
        shared = _of_group("poll", "receive", self._group, self.client_id)
        kind, began = trace.SpanKind.CLIENT, self._polled[0]
        poll = self._poll = self.begin("poll", None, kind, shared, own, start_time=began)
        if poll.is_recording():
            topics = self._topics()  # of one that is not recorded nobody asks
            if len(topics) == 1:
                (topic,) = topics
                poll.update_name(f"poll {topic}")
                poll.set_attribute("messaging.destination.name", topic)
            self._links = (trace.Link(poll.get_span_context()),)
            self._link_poll = linking(poll)

    def handled(self, span: trace.Span) -> None:
        self._handled.append((span, time.time_ns()))


_batch: ContextVar[Batch | None] = ContextVar("kafka_batch", default=None)


class process:
    """The span `process TOPIC` around a listener's call; its parent is the span of the send. Within
    a batch it is ended by that, unless the call raises."""

    __slots__ = ("_batch", "_group", "_message", "_span", "_token")

    def __init__(self, message: Message[Any], group: str) -> None:
        self._message = message
        self._group = group

    def __enter__(self) -> None:
        self._batch = _batch.get()
        self._span = _start_process(self._message, self._group, self._batch)
        self._token = context.attach(trace.set_span_in_context(self._span))

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        context.detach(self._token)
        if error is None:
            if self._batch is None:
                self._span.end()
            else:
                self._batch.handled(self._span)
        elif isinstance(error, Exception):
            self._span.set_attribute(OUTCOME, "failed")
            failed(self._span, error)
            self._span.end()


def duplicate(message: Message[Any], group: str) -> None:
    """A process span without a call: the record was handled before."""
    if recorded(message.traceparent):
        span = _start_process(message, group, _batch.get())
        span.set_attribute(OUTCOME, "duplicate")
        span.end()


def unreadable(raw: Any, group: str, error: Exception) -> None:
    """A process span of a record (confluent_kafka.Message) that cannot be decoded."""
    headers = raw.headers() or []
    if recorded(traceparent_of(headers)):
        place = raw.topic(), raw.partition(), raw.offset()
        span = _start(sender_of(headers), *place, group, _batch.get(), {})
        span.set_attribute(OUTCOME, "failed")
        failed(span, error)
        span.end()


def _start_process(message: Message[Any], group: str, batch: Batch | None) -> trace.Span:
    own: dict[str, Any] = {
        "messaging.message.id": message.event_id,
        "messaging.message.conversation_id": message.correlation_id,
    }
    if message.key is not None:
        own["messaging.kafka.message.key"] = message.key
    place = message.topic, message.partition, message.offset
    return _start(sender_of_message(message), *place, group, batch, own)


def _start(
    sender: Remote | None,
    topic: str,
    partition: int,
    offset: int,
    group: str,
    batch: Batch | None,
    own: dict[str, Any],
) -> trace.Span:
    own["messaging.kafka.offset"] = offset
    links: tuple[trace.Link, ...] = ()
    client_id = None
    if batch is None:
        begin = begin_here(SCOPE)
    else:
        begin, client_id = batch.begin, batch.client_id
        attempt = batch.attempt_of(topic, partition, offset)
        if attempt > 1:
            own[ATTEMPT] = attempt
        links = batch.link_of(sender)
    shared = _of_partition(topic, partition, group, client_id)
    return begin(f"process {topic}", sender, trace.SpanKind.CONSUMER, shared, own, links=links)


@lru_cache(maxsize=10_000)
def _of_partition(topic: str, partition: int, group: str, client_id: str | None) -> Shared:
    """What the process spans of a partition have in common."""
    place: dict[str, Any] = {
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": str(partition),
    }
    return Shared({**_of_group("process", "process", group, client_id), **place})


@lru_cache(maxsize=1000)
def _of_group(name: str, kind: str, group: str, client_id: str | None) -> Shared:
    shared = Shared(
        {
            "messaging.system": "kafka",
            "messaging.operation.name": name,
            "messaging.operation.type": kind,
            "messaging.consumer.group.name": group,
        }
    )
    if client_id is not None:
        shared["messaging.client.id"] = client_id
    return shared
