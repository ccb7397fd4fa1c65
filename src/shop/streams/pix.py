"""What is derived from the payments: those to verify, and the sums by sender's key."""

from decimal import Decimal
from typing import Any, TypeVar

from shop.events import Pix, PixSum
from shop.kafka import correlation
from shop.kafka.ids import derived_id
from shop.kafka.outbound import OutboundRecord, outbound
from shop.kafka.topic import Topic
from shop.kafka.wire import Message
from shop.streams import exact
from shop.streams.quix import Application, State
from shop.streams.records import once, read, regroup, summable, write
from shop.topics import PIX, PIX_SUM_BY_KEY, PIX_VERIFICATION, pix_identity

E = TypeVar("E")

TITLE = "PixStream"


def define(application: Application, limit: Decimal) -> None:
    """Payments of more than `limit` to PIX_VERIFICATION, and to PIX_SUM_BY_KEY what each key has
    sent so far. A payment that comes again has no part in either."""

    def is_large(payment: Message[Pix]) -> bool:
        return payment.event.amount is not None and payment.event.amount > limit

    payments = once(read(application, PIX), pix_identity)
    write(payments.filter(is_large).apply(_to_verify), application, PIX_VERIFICATION)
    by_sender = regroup(payments.filter(_counts), PIX, _sender, name="sender")
    write(by_sender.apply(_add, stateful=True), application, PIX_SUM_BY_KEY)


def _to_verify(payment: Message[Pix]) -> OutboundRecord:
    return _derived(PIX_VERIFICATION, payment, payment.event)


def _counts(payment: Message[Pix]) -> bool:
    amount = payment.event.amount
    return payment.event.source_key is not None and amount is not None and summable(amount)


def _sender(payment: Message[Pix]) -> str:
    assert payment.event.source_key is not None
    return payment.event.source_key


def _add(payment: Message[Pix], state: State[str, Any]) -> OutboundRecord:
    """The sender's sum with this payment. JSON keeps the state, and its numbers are no decimals:
    the sum is a text there."""
    amount, sender = payment.event.amount, payment.event.source_key
    assert amount is not None
    assert sender is not None
    before, payments = state.get("sum", ["0", 0])
    total = exact.add(Decimal(before), amount)
    state.set("sum", [str(total), payments + 1])
    return _derived(
        PIX_SUM_BY_KEY, payment, PixSum(source_key=sender, total=total, payments=payments + 1)
    )


def _derived(topic: Topic[E], payment: Message[Pix], event: E) -> OutboundRecord:
    return outbound(
        topic,
        None,
        event,
        correlation_id=correlation.through(payment.correlation_id, TITLE),
        event_id=derived_id(payment.event_id, topic),
        traceparent=payment.traceparent,
    )
