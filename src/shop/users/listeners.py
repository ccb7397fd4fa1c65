import logging
import time

from shop.db.work import Work
from shop.events import Order
from shop.kafka import correlation, tracing
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.ids import random_id
from shop.kafka.listener import listener
from shop.kafka.wire import Message
from shop.printable import printable
from shop.topics import NEW_ORDER, SEND_MESSAGE_TO_ALL_USERS, order_identity
from shop.users.model import FanOutRow, State, UserRow
from shop.users.targets import TARGETS

log = logging.getLogger(__name__)


class Users:
    """Knows every customer who ever ordered, once per e-mail."""

    @listener(NEW_ORDER, group="users", once=order_identity)
    def register(self, order: Order, work: Work, ack: Acknowledgment) -> None:
        now = time.time_ns() // 1_000_000
        work.add_if_absent(UserRow, uuid=random_id(), email=order.email, created_at=now)
        ack.acknowledge()


class Batch:
    """Notes that all users are to be sent a record; `FanOutSender` does it."""

    @listener(SEND_MESSAGE_TO_ALL_USERS, group="batch")
    def note(self, message: Message[str], work: Work, ack: Acknowledgment) -> None:
        now = time.time_ns() // 1_000_000
        target = message.event[:249].replace("\0", "")  # PostgreSQL takes no NUL
        refused = None
        if message.event not in TARGETS:
            refused = f"{target!r} is not one of {', '.join(TARGETS)}"
            log.warning("fan-out %s is refused: %s", printable(message.event_id), refused)
        work.add_if_absent(
            FanOutRow,
            id=message.event_id,
            target=target,
            correlation_id=correlation.through(message.correlation_id, "Batch"),
            traceparent=tracing.current_traceparent() or message.traceparent,
            asked_at=now,
            state=State.REFUSED if refused else State.RUNNING,
            total=0 if refused else None,
            sent=0,
            cursor="",
            finished_at=now if refused else None,
            refused=refused,
        )
        ack.acknowledge()
