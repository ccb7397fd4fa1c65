import time

from shop.db.work import Work
from shop.events import Order
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.listener import listener
from shop.kafka.wire import Message
from shop.orders.model import OrderRow, Status
from shop.topics import ORDER_APPROVED, ORDER_REJECTED

DECIDED = {ORDER_APPROVED.name: Status.APPROVED, ORDER_REJECTED.name: Status.REJECTED}


class OrderStatus:
    """Notes the decision on an order; one that came by another way than our API is added."""

    @listener(ORDER_APPROVED, ORDER_REJECTED, group="orders")
    def decided(self, message: Message[Order], work: Work, ack: Acknowledgment) -> None:
        order = message.event.identified(message.correlation_id)
        now = time.time_ns() // 1_000_000
        work.put(
            OrderRow,
            update=("status", "correlation_id", "decided_at"),
            id=order.order_id,
            email=order.email,
            amount=order.amount,
            status=DECIDED[message.topic],
            correlation_id=message.correlation_id,
            created_at=message.timestamp if message.timestamp > 0 else now,
            decided_at=now,
        )
        ack.acknowledge()
