"""The spans of a group: of each record that somebody samples, and of the batch that it came in.

A record's process span is a child of its send span, so that all that comes of one event is one
trace. What concerns many records at once, the poll and the commit of a batch, is a trace of its
own: linked with each record's send span, and from each process span.
"""

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from opentelemetry import context, trace
from opentelemetry.context import Context

from shop.kafka.store import Partition
from shop.kafka.tracing import below, failed, recorded, sender_of, traceparent_of, tracer
from shop.kafka.wire import Message

OUTCOME = "listener.outcome"  # of a process span: handled, duplicate, failed or rolled back
ATTEMPT = "listener.attempt"  # which one it is, from the second on


class Batch:
    """The spans of the records that were polled together. They end with the batch, since only then
    it is known whether what their listeners did came true. For one thread.

    `polled`: when the poll began and ended, in nanoseconds since the epoch. `atomic`: whether all
    is undone when one record fails. `attempt_of(partition, offset)`: 1 for the first."""

    def __init__(
        self,
        group: str,
        client_id: str,
        polled: tuple[int, int],
        count: int,
        topics: Callable[[], set[str]],
        attempt_of: Callable[[Partition, int], int],
        *,
        atomic: bool,
    ) -> None:
        self.attempt_of = attempt_of
        self.client_id = client_id
        self._group = group
        self._polled = polled
        self._count = count
        self._topics = topics
        self._atomic = atomic
        self._poll: trace.Span | None = None
        self._link: list[trace.Link] = []
        self._handled: list[tuple[trace.Span, int]] = []

    def __enter__(self) -> None:
        self._token = _batch.set(self)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        _batch.reset(self._token)
        undone = error is not None and self._atomic
        for span, ended in self._handled:
            span.set_attribute(OUTCOME, "rolled back" if undone else "handled")
            span.end(ended)
        if self._poll is not None:
            began = max((ended for _, ended in self._handled), default=self._polled[1])
            commit = tracer.start_span(
                f"commit {self._group}",
                context=trace.set_span_in_context(self._poll, Context()),
                attributes=self._attributes("commit", "settle"),
                start_time=began,
            )
            if isinstance(error, Exception):
                failed(commit, error)
            commit.end()
            self._poll.end(self._polled[1])

    def link_of(self, sender: trace.SpanContext | None) -> list[trace.Link]:
        """A link to the poll of this batch, which from now on is linked with the sender."""
        if self._poll is None:
            topics = self._topics()
            name = f"poll {next(iter(topics))}" if len(topics) == 1 else "poll"
            attributes = self._attributes("poll", "receive")
            if len(topics) == 1:
                attributes["messaging.destination.name"] = next(iter(topics))
            attributes["messaging.batch.message_count"] = self._count
            self._poll = tracer.start_span(
                name, Context(), trace.SpanKind.CLIENT, attributes, start_time=self._polled[0]
            )
            poll = self._poll.get_span_context()
            self._link = [trace.Link(poll)] if poll.trace_flags.sampled else []
        if sender is not None:
            self._poll.add_link(sender)
        return self._link

    def handled(self, span: trace.Span) -> None:
        self._handled.append((span, time.time_ns()))

    def _attributes(self, name: str, kind: str) -> dict[str, Any]:
        return {
            "messaging.system": "kafka",
            "messaging.operation.name": name,
            "messaging.operation.type": kind,
            "messaging.consumer.group.name": self._group,
            "messaging.client.id": self.client_id,
        }


_batch: ContextVar[Batch | None] = ContextVar("kafka_batch", default=None)


class process:
    """The span `process TOPIC` around a listener's call; its parent is the span of the send. Within
    a batch it is ended by that, unless the call raises."""

    __slots__ = ("_group", "_message", "_span", "_token")

    def __init__(self, message: Message[Any], group: str) -> None:
        self._message = message
        self._group = group

    def __enter__(self) -> None:
        self._span = _start_process(self._message, self._group)
        self._token = context.attach(trace.set_span_in_context(self._span))

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        context.detach(self._token)
        if error is None:
            batch = _batch.get()
            if batch is None:
                self._span.end()
            else:
                batch.handled(self._span)
        elif isinstance(error, Exception):
            self._span.set_attribute(OUTCOME, "failed")
            failed(self._span, error)
            self._span.end()


def duplicate(message: Message[Any], group: str) -> None:
    """A process span without a call: the record was handled before."""
    if recorded(message.traceparent):
        span = _start_process(message, group)
        span.set_attribute(OUTCOME, "duplicate")
        span.end()


def unreadable(raw: Any, group: str, error: Exception) -> None:
    """A process span of a record (confluent_kafka.Message) that cannot be decoded."""
    headers = raw.headers() or []
    if recorded(traceparent_of(headers)):
        place = Partition(raw.topic(), raw.partition())
        span = _start(sender_of(headers), place, raw.offset(), group, {})
        span.set_attribute(OUTCOME, "failed")
        failed(span, error)
        span.end()


def _start_process(message: Message[Any], group: str) -> trace.Span:
    attributes = {
        "messaging.message.id": message.event_id,
        "messaging.message.conversation_id": message.correlation_id,
    }
    if message.key is not None:
        attributes["messaging.kafka.message.key"] = message.key
    place = Partition(message.topic, message.partition)
    return _start(sender_of(message.headers), place, message.offset, group, attributes)


def _start(
    sender: trace.SpanContext | None,
    place: Partition,
    offset: int,
    group: str,
    attributes: dict[str, Any],
) -> trace.Span:
    topic, number = place
    attributes["messaging.system"] = "kafka"
    attributes["messaging.operation.name"] = attributes["messaging.operation.type"] = "process"
    attributes["messaging.destination.name"] = topic
    attributes["messaging.destination.partition.id"] = str(number)
    attributes["messaging.kafka.offset"] = offset
    attributes["messaging.consumer.group.name"] = group
    links: list[trace.Link] = []
    batch = _batch.get()
    if batch is not None:
        attributes["messaging.client.id"] = batch.client_id
        attempt = batch.attempt_of(place, offset)
        if attempt > 1:
            attributes[ATTEMPT] = attempt
        links = batch.link_of(sender)
    return tracer.start_span(
        f"process {topic}", below(sender), trace.SpanKind.CONSUMER, attributes, links
    )
