"""What each record leads to on the topics: the events that must follow from it, and in which turn.

Our listeners derive the id of what they send from what they were sent, so it is known beforehand.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from shop.kafka.dispatch import Incoming
from shop.kafka.ids import derived_id
from shop.kafka.topic import Topic
from shop.kafka.wire import Message
from shop.log.way import sender_of, sends_of
from shop.topics import (
    NEW_ORDER,
    ORDER_APPROVED,
    ORDER_REJECTED,
    PIX,
    SEND_EMAIL,
    USER_GENERATE_READING_REPORT,
    order_identity,
    pix_identity,
)

# What a group sends of each record that it handles: one, to one of these.
HOPS: Mapping[str, Sequence[Topic[Any]]] = {
    "fraud": (ORDER_APPROVED, ORDER_REJECTED),
    "email-new-order": (SEND_EMAIL,),
}
_OF_ORDERS = (NEW_ORDER.name, ORDER_APPROVED.name, ORDER_REJECTED.name)
_THANKS = ("EmailNewOrder", "EmailNewOrderService")  # ours and Java's, who do the same


def followed_by(group: str, message: Message[Any]) -> str:
    """The subject of what any program that does the group's work sends of a record."""
    return order_identity(message) if group == "fraud" else message.correlation_id


def sent_by(group: str, incoming: Incoming) -> str:
    """The event id of the first that a listener sends of a record."""
    return derived_id(incoming.identity, group, 0)


def subject_of(message: Message[Any]) -> str | None:
    """What a record is about, which others of its topic may be about too: its order, its payment,
    or the record that led to it."""
    if message.topic in _OF_ORDERS:
        return order_identity(message)
    if message.topic == PIX.name:
        return pix_identity(message)
    if message.topic == USER_GENERATE_READING_REPORT.name:
        return cause_of(message.correlation_id)
    if message.topic == SEND_EMAIL.name and sender_of(message.correlation_id) in _THANKS:
        return cause_of(message.correlation_id)
    return None


def cause_of(correlation_id: str) -> str | None:
    """The correlation id of the record that led to one with this correlation id."""
    sends = sends_of(correlation_id)
    return sends[1] if len(sends) > 1 else None
