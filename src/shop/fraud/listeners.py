from decimal import Decimal

from shop.db.work import Work
from shop.events import Order
from shop.fraud.model import Decision
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.listener import listener
from shop.kafka.wire import Message
from shop.topics import NEW_ORDER, ORDER_APPROVED, ORDER_REJECTED, order_identity


class FraudDetector:
    """Decides on each order once: an amount of the limit or more is fraud."""

    def __init__(self, limit: Decimal) -> None:
        self._limit = limit

    @listener(NEW_ORDER, group="fraud", once=order_identity)
    def decide(self, message: Message[Order], work: Work, ack: Acknowledgment) -> None:
        order = message.event.identified(message.correlation_id)
        fraud = order.amount >= self._limit
        work.add(Decision, order_id=order.order_id, amount=order.amount, is_fraud=fraud)
        work.send(ORDER_REJECTED if fraud else ORDER_APPROVED, order.email, order)
        ack.acknowledge()
