import time

from shop.db.store import Work
from shop.events import Order
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.ids import random_id
from shop.kafka.listener import listener
from shop.topics import NEW_ORDER, order_identity
from shop.users.model import UserRow


class Users:
    """Knows every customer who ever ordered, once per e-mail."""

    @listener(NEW_ORDER, group="users", once=order_identity)
    def register(self, order: Order, work: Work, ack: Acknowledgment) -> None:
        now = time.time_ns() // 1_000_000
        work.add_if_absent(UserRow, uuid=random_id(), email=order.email, created_at=now)
        ack.acknowledge()
