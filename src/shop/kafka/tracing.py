"""Spans by OpenTelemetry's messaging conventions (semconv v1.44), made only where somebody samples.

The sampled flag of a traceparent is read by hand: for a record that is not sampled this costs a
few hundred nanoseconds instead of two spans. The decision is the root's.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shop.kafka.wire import EVENT_ID, TRACEPARENT, TRACESTATE, Headers, Message

_w3c = TraceContextTextMapPropagator()
_NOTHING: AbstractContextManager[None] = nullcontext()


def _tracer() -> trace.Tracer:
    return trace.get_tracer("shop.kafka")


def sampled(traceparent: str | None) -> bool:
    """Whether a W3C traceparent has the sampled flag (the last bit of its last field)."""
    if not traceparent or len(traceparent) < 55:
        return False
    try:
        return bool(int(traceparent[53:55], 16) & 1)
    except ValueError:
        return False


def current_traceparent() -> str | None:
    """The traceparent of the span that is current in this thread, if there is one."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier)
    return carrier.get(TRACEPARENT)


@contextmanager
def process(message: Message[Any], group: str) -> Iterator[None]:
    """The span `process TOPIC` around a listener's call; its parent is the span of the send."""
    carrier = {
        name: value.decode("ascii", "replace")
        for name, value in message.headers
        if name in (TRACEPARENT, TRACESTATE) and value
    }
    attributes: dict[str, Any] = {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": message.topic,
        "messaging.destination.partition.id": str(message.partition),
        "messaging.kafka.offset": message.offset,
        "messaging.consumer.group.name": group,
        "messaging.message.id": message.event_id,
        "messaging.message.conversation_id": message.correlation_id,
    }
    if message.key is not None:
        attributes["messaging.kafka.message.key"] = message.key
    with _tracer().start_as_current_span(
        f"process {message.topic}",
        context=_w3c.extract(carrier, context=Context()),
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
    ) as span:
        try:
            yield
        except Exception as error:
            span.set_attribute("error.type", type(error).__qualname__)
            raise


def send(
    topic: str, key: str | None, correlation_id: str, traceparent: str | None, headers: Headers
) -> AbstractContextManager[Any]:
    """The span `send TOPIC`, and its context put into `headers` for the receiver.

    The parent is the current span, or else `traceparent`, which is passed on as it is when it is
    not sampled."""
    span = trace.get_current_span()
    if span.is_recording():
        return _send(topic, key, correlation_id, None, headers)
    if not traceparent:
        return _NOTHING
    if not sampled(traceparent):
        headers.append((TRACEPARENT, traceparent.encode("ascii", "replace")))
        return _NOTHING
    context = _w3c.extract({TRACEPARENT: traceparent}, context=Context())
    return _send(topic, key, correlation_id, context, headers)


@contextmanager
def _send(
    topic: str, key: str | None, correlation_id: str, parent: Context | None, headers: Headers
) -> Iterator[None]:
    attributes = {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
        "messaging.message.conversation_id": correlation_id,
    }
    if key is not None:
        attributes["messaging.kafka.message.key"] = key
    for name, value in headers:
        if name == EVENT_ID:
            attributes["messaging.message.id"] = value.decode("utf-8", "replace")
    with _tracer().start_as_current_span(
        f"send {topic}", context=parent, kind=trace.SpanKind.PRODUCER, attributes=attributes
    ):
        carrier: dict[str, str] = {}
        _w3c.inject(carrier)
        headers.extend((name, value.encode("ascii", "replace")) for name, value in carrier.items())
        yield
