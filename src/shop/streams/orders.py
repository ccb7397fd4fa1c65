"""What is derived from the decisions: orders and amounts per minute."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from shop.events import Order, OrdersPerMinute
from shop.kafka import correlation
from shop.kafka.ids import derived_id
from shop.kafka.outbound import OutboundRecord, outbound
from shop.kafka.topic import Topic
from shop.kafka.wire import Message
from shop.streams import exact
from shop.streams.quix import Application
from shop.streams.records import left_out, once, read, regroup, summable, write
from shop.topics import ORDER_APPROVED, ORDER_REJECTED, ORDERS_PER_MINUTE, order_identity

TITLE = "OrderStream"
MINUTE = timedelta(minutes=1)
# How long a minute can still grow. Partitions that are read after one another, after a time that
# this process was down, look late to one another; a minute kept costs about 100 bytes.
GRACE = timedelta(days=365)

Decision = Literal["approved", "rejected"]
Tally = tuple[int, str]  # orders and amount; JSON keeps the state, and its numbers are no decimals


def define(application: Application) -> None:
    """Every decided order makes the minute of its decision's record grow, and the minute as it is
    then goes to ORDERS_PER_MINUTE. An order that comes again is not counted."""
    _per_minute(application, ORDER_APPROVED, "approved")
    _per_minute(application, ORDER_REJECTED, "rejected")


def _per_minute(application: Application, topic: Topic[Order], decision: Decision) -> None:
    orders = once(read(application, topic), order_identity).filter(
        lambda order: summable(order.event.amount)
    )
    minutes = (
        regroup(orders, topic, lambda _: decision, name="decision")
        .tumbling_window(MINUTE, grace_ms=GRACE, on_late=_late)
        .reduce(reducer=_grown, initializer=lambda order: _grown((0, "0"), order))
        .current()
    )

    def updated(window: dict[str, Any]) -> OutboundRecord:
        orders, amount = window["value"]
        minute = OrdersPerMinute(
            decision=decision,
            begin=datetime.fromtimestamp(window["start"] / 1000, UTC),
            end=datetime.fromtimestamp(window["end"] / 1000, UTC),
            orders=orders,
            amount=Decimal(amount),
        )
        return outbound(
            ORDERS_PER_MINUTE,
            None,
            minute,
            correlation_id=correlation.begin(TITLE),  # a window has those of many orders
            event_id=derived_id(f"{decision} {window['start']}", orders),
        )

    write(minutes.apply(updated), application, ORDERS_PER_MINUTE)


def _grown(tally: Tally, order: Message[Order]) -> Tally:
    orders, amount = tally
    return orders + 1, str(exact.add(Decimal(amount), order.event.amount))


def _late(
    value: object,
    key: object,
    timestamp_ms: int,
    late_by_ms: int,
    start: int,
    end: int,
    store_name: str,
    topic: str,
    partition: int,
    offset: int,
) -> bool:
    left_out(f"its minute ended {late_by_ms / 3_600_000:.0f} h too long ago")
    return False  # nothing more to log
