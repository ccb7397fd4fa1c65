"""Where events travel: every topic with what it carries, its key and its partitions."""

from shop.events import Order, OrdersPerMinute, Pix, PixSum, User, from_wire
from shop.kafka.dead_letter import LARGEST_ON_TOPIC
from shop.kafka.letter import DeadLetterCodec
from shop.kafka.plain import PlainCodec
from shop.kafka.topic import Topic
from shop.kafka.wire import EnvelopeCodec, Message

_ORDER = EnvelopeCodec[Order]({"br.com.alura.ecommerce.Order": Order})
_TEXT = EnvelopeCodec[str]({"java.lang.String": str})
_PIX = PlainCodec(Pix, "com.alura.pix.dto.PixDTO", from_wire)
_USER = EnvelopeCodec[User]({"br.com.alura.ecommerce.User": User})


def _by_email(order: Order) -> str:
    return order.email


def _by_uuid(user: User) -> str:
    return user.uuid


def _by_identifier(pix: Pix) -> str:
    return pix.identifier or ""


def _by_source_key(sum_: PixSum) -> str:
    return sum_.source_key


def _by_decision(minute: OrdersPerMinute) -> str:
    return minute.decision


def _itself(text: str) -> str:
    return text


NEW_ORDER = Topic("ECOMMERCE_NEW_ORDER", _ORDER, key=_by_email)
ORDER_APPROVED = Topic("ECOMMERCE_ORDER_APPROVED", _ORDER, key=_by_email)
ORDER_REJECTED = Topic("ECOMMERCE_ORDER_REJECTED", _ORDER, key=_by_email)
SEND_EMAIL = Topic("ECOMMERCE_SEND_EMAIL", _TEXT)  # the key is the recipient
SEND_MESSAGE_TO_ALL_USERS = Topic(  # the text is the name of the topic that gets a record per user
    "ECOMMERCE_SEND_MESSAGE_TO_ALL_USERS", _TEXT, key=_itself
)
USER_GENERATE_READING_REPORT = Topic("ECOMMERCE_USER_GENERATE_READING_REPORT", _USER, key=_by_uuid)
USER_EMAIL = "user-email"  # the header of its records that says who the uuid is
DEADLETTER = Topic(
    "ECOMMERCE_DEADLETTER", DeadLetterCodec(), config={"max.message.bytes": str(LARGEST_ON_TOPIC)}
)
PIX = Topic("pix-topic", _PIX, key=_by_identifier)
PIX_VERIFICATION = Topic("pix-verification", _PIX, key=_by_identifier)
PIX_SUM_BY_KEY = Topic(
    "pix-sum-by-key",
    PlainCodec(PixSum, "shop.PixSum"),
    key=_by_source_key,
    config={"cleanup.policy": "compact"},  # the latest sum of each key is kept
)
ORDERS_PER_MINUTE = Topic(
    "orders-per-minute", PlainCodec(OrdersPerMinute, "shop.OrdersPerMinute"), key=_by_decision
)

ALL = (
    NEW_ORDER,
    ORDER_APPROVED,
    ORDER_REJECTED,
    SEND_EMAIL,
    SEND_MESSAGE_TO_ALL_USERS,
    USER_GENERATE_READING_REPORT,
    DEADLETTER,
    PIX,
    PIX_VERIFICATION,
    PIX_SUM_BY_KEY,
    ORDERS_PER_MINUTE,
)


def order_identity(message: Message[Order]) -> str:
    """What makes an order one, under whatever event id it comes: its id, else the correlation id
    of its record. The Java API sends an order again when its caller repeats a uuid."""
    return message.event.order_id or message.correlation_id


def pix_identity(message: Message[Pix]) -> str:
    """What makes a payment one: its identifier, else its record."""
    return message.event.identifier or message.event_id
