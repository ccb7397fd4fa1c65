"""From the records of a topic to messages, and from what was derived to records again.

Between the two, a stream's values are `Message`s, as listeners see them.
"""

import logging
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

from shop.kafka import correlation
from shop.kafka.errors import WireError
from shop.kafka.outbound import OutboundRecord
from shop.kafka.topic import Topic
from shop.kafka.wire import CORRELATION_ID, EVENT_ID, TRACEPARENT, Headers, Message, received_ids
from shop.streams import exact
from shop.streams.quix import (
    Application,
    QuixTopic,
    Serializer,
    State,
    StreamingDataFrame,
    message_context,
)

log = logging.getLogger(__name__)

E = TypeVar("E")

# How long a repeat is known as one, by the records' own time: longer than a sender that crashed
# between sending and noting it may be down.
REMEMBERED = timedelta(days=7)
# Brokers refuse records of 1 MB, which would end the stream at this one for ever. So there are
# limits to the bytes of a value, which grows a little when it is sent on, and to the characters of
# what becomes a key: of a record, or of the state, whose changes are records.
LARGEST = 900_000
LONGEST = correlation.MAX_LENGTH  # what identifies an order may be its correlation id


def read(application: Application, topic: Topic[Any]) -> StreamingDataFrame:
    """The topic's records as `Message`s. One that cannot be read is logged and left out."""
    source = application.topic(topic.name, value_deserializer="bytes")
    return _messages(application.dataframe(source).filter(_is_small), topic)


def once(messages: StreamingDataFrame, identity: Callable[[Message[E]], str]) -> StreamingDataFrame:
    """The messages without those whose identity came before, under the same record key, within
    the time REMEMBERED."""

    def is_new(message: Message[E], state: State[str, int]) -> bool:
        name = identity(message)
        if not _is_short("identity", name) or state.exists(name):
            return False
        state.set(name, 1, ttl=REMEMBERED)
        return True

    return messages.filter(is_new, stateful=True)


def regroup(
    messages: StreamingDataFrame,
    topic: Topic[E],
    key: Callable[[Message[E]], str],
    name: str,
) -> StreamingDataFrame:
    """The same messages under another key, through an internal topic that `name` is part of."""
    short = messages.filter(lambda message: _is_short("key", key(message)))
    grouped = short.set_headers(_own_headers).group_by(
        key,
        name=name,
        key_serializer="str",
        value_serializer=_Events(topic),
        key_deserializer="bytes",
        value_deserializer="bytes",
    )
    if grouped.topics == messages.topics:  # of one partition: no internal topic, only other keys
        return grouped
    return _messages(grouped, topic)


def summable(amount: Decimal) -> bool:
    """Whether an amount can be added to others; the record in hand is left out if not."""
    if exact.addable(amount):
        return True
    left_out(f"its amount has more than {exact.PLACES} places before or after the point")
    return False


def write(records: StreamingDataFrame, application: Application, topic: Topic[Any]) -> None:
    """Send OutboundRecords to the topic that they were made for."""
    target: QuixTopic = application.topic(
        topic.name, key_serializer="str", value_serializer=_Values()
    )
    records.set_headers(lambda record, *_: record.headers).to_topic(
        target, key=lambda record: record.key
    )


def received(
    topic: Topic[E],
    value: bytes | None,
    key: bytes | None,
    timestamp: int,
    headers: Headers | None,
) -> Message[E] | None:
    """The record in hand as a message; None for one that is left out."""
    try:
        event, correlation_id = topic.codec.decode(value)
    except WireError as error:
        left_out(error)
        return None
    except Exception as error:  # what it trips over once it trips over at every start
        left_out(f"{type(error).__name__}: {error}")
        return None
    place = message_context()
    event_id, correlation_id, traceparent, redrive_to = received_ids(
        headers or [], correlation_id, place.topic, place.partition, place.offset
    )
    if redrive_to is not None:
        left_out(f"it comes again for group {redrive_to} alone")
        return None
    text = None if key is None else key.decode("utf-8", "replace")
    if not _is_short("key", text):
        return None
    return Message(
        event=event,
        key=text,
        topic=place.topic,
        partition=place.partition,
        offset=place.offset,
        timestamp=timestamp,
        event_id=event_id,
        correlation_id=correlation_id,
        traceparent=traceparent,
        headers=headers or [],
    )


def left_out(reason: object) -> None:
    """Log that the record in hand has no part in the stream."""
    place = message_context()
    where = (place.topic, place.partition, place.offset)
    log.warning("%s[%d] at %d is left out: %.300s", *where, reason)


class _Events(Serializer):
    """Messages as values of their topic."""

    def __init__(self, topic: Topic[Any]) -> None:
        self._encode = topic.codec.encode

    def __call__(self, message: Message[Any], ctx: Any) -> bytes:
        return self._encode(message.event, message.correlation_id)


class _Values(Serializer):
    """OutboundRecords, whose values are bytes already."""

    def __call__(self, record: OutboundRecord, ctx: Any) -> bytes:
        assert record.value is not None
        return record.value


def _messages(records: StreamingDataFrame, topic: Topic[Any]) -> StreamingDataFrame:
    messages = records.apply(partial(received, topic), metadata=True)
    return messages.filter(lambda message: message is not None)


def _is_small(value: bytes | None) -> bool:
    if value is None or len(value) <= LARGEST:
        return True
    left_out(f"its value has more than {LARGEST} bytes")
    return False


def _is_short(what: str, text: str | None) -> bool:
    if text is None or len(text) <= LONGEST:
        return True
    left_out(f"its {what} has more than {LONGEST} characters")
    return False


def _own_headers(message: Message[Any], *_: object) -> Headers:
    """What another reader needs to see the same message."""
    headers = [
        (EVENT_ID, message.event_id.encode("utf-8", "replace")),
        (CORRELATION_ID, message.correlation_id.encode("utf-8", "replace")),
    ]
    if message.traceparent:
        headers.append((TRACEPARENT, message.traceparent.encode("ascii", "replace")))
    return headers
