"""Records on their way out: encoded, with their headers, ready for a template or an outbox."""

from typing import TypeVar

import msgspec

from shop.kafka import correlation, tracing
from shop.kafka.ids import time_ordered_id
from shop.kafka.topic import Topic
from shop.kafka.wire import CORRELATION_ID, EVENT_ID, Headers

E = TypeVar("E")


class OutboundRecord(msgspec.Struct, frozen=True, gc=False):
    """A record ready to be sent, or to wait in an outbox until it is."""

    topic: str
    key: str | bytes | None
    value: bytes | None
    headers: Headers


def outbound(
    topic: Topic[E],
    key: str | None,
    event: E,
    *,
    correlation_id: str,
    event_id: str | None = None,
    traceparent: str | None = None,
    headers: Headers | None = None,
) -> OutboundRecord:
    """Encode an event for its topic. `correlation_id` is the sender's; the send is appended.

    Raises WireError when the event is not what the topic carries. Without `key`, the topic's own
    rule gives it."""
    if key is None and topic.key is not None:
        key = topic.key(event)
    all_headers = [
        (EVENT_ID, (event_id or time_ordered_id()).encode("utf-8", "replace")),
        *topic.codec.fixed_headers,
        *(headers or ()),
    ]
    hop = correlation.sent_to(correlation_id, topic.name)
    if not topic.codec.carries_correlation_id:
        all_headers.append((CORRELATION_ID, hop.encode("utf-8", "replace")))
    with tracing.send(topic.name, key, hop, traceparent, all_headers):
        value = topic.codec.encode(event, hop)
    return OutboundRecord(topic.name, key, value, all_headers)
