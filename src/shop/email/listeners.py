from shop.db.work import Work
from shop.email.mailer import Mailer
from shop.events import Order
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.listener import listener
from shop.kafka.retry import Backoff, Retry
from shop.kafka.wire import Message
from shop.topics import NEW_ORDER, SEND_EMAIL, order_identity

THANKS = "Thank you for your order! We are processing your order!"


class EmailNewOrder:
    """Asks for a mail that thanks for an order, once per order."""

    @listener(NEW_ORDER, group="email-new-order", once=order_identity)
    def thank(self, order: Order, work: Work, ack: Acknowledgment) -> None:
        work.send(SEND_EMAIL, order.email, THANKS)
        ack.acknowledge()


class Email:
    """Sends mail. A crash can repeat at most the one being sent, under the same Message-ID.

    While the mail server is away the records wait; a mail that it will never take fails.
    """

    def __init__(self, mailer: Mailer) -> None:
        self._mailer = mailer

    # A mailbox that is full, or a server that wants to be asked again: about four minutes.
    @listener(
        SEND_EMAIL,
        group="email",
        concurrency=5,
        external=True,
        retry=Retry(attempts=10, backoff=Backoff(first=1.0, longest=60.0)),
    )
    def send(self, message: Message[str]) -> None:
        self._mailer.send(
            recipient=message.key,
            text=message.event,
            event_id=message.event_id,
            correlation_id=message.correlation_id,
        )
