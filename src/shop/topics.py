"""Where events travel: every topic with what it carries, its key and its partitions."""

from shop.events import Order
from shop.kafka.topic import Topic
from shop.kafka.wire import EnvelopeCodec, Message

_ORDER = EnvelopeCodec[Order]({"br.com.alura.ecommerce.Order": Order})
_TEXT = EnvelopeCodec[str]({"java.lang.String": str})


def _by_email(order: Order) -> str:
    return order.email


NEW_ORDER = Topic("ECOMMERCE_NEW_ORDER", _ORDER, key=_by_email)
ORDER_APPROVED = Topic("ECOMMERCE_ORDER_APPROVED", _ORDER, key=_by_email)
ORDER_REJECTED = Topic("ECOMMERCE_ORDER_REJECTED", _ORDER, key=_by_email)
SEND_EMAIL = Topic("ECOMMERCE_SEND_EMAIL", _TEXT)  # the key is the recipient

ALL = (NEW_ORDER, ORDER_APPROVED, ORDER_REJECTED, SEND_EMAIL)


def order_identity(message: Message[Order]) -> str:
    """What makes an order one, under whatever event id it comes: its id, else the correlation id
    of its record. The Java API sends an order again when its caller repeats a uuid."""
    return message.event.order_id or message.correlation_id
