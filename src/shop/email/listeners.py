import logging
import threading
import time

from shop.db.store import Work
from shop.email.mailer import Mailer, MailRefused, MailServerUnavailable
from shop.events import Order
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.listener import listener
from shop.kafka.wire import Message
from shop.topics import NEW_ORDER, SEND_EMAIL, order_identity

log = logging.getLogger(__name__)

THANKS = "Thank you for your order! We are processing your order!"
SHORTEST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0


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
        self._lock = threading.Lock()
        self._down_since: float | None = None
        self._trouble: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why no mail can be sent now; None when it can, as far as the last one told."""
        return self._trouble

    @listener(SEND_EMAIL, group="email", concurrency=5, external=True)
    def send(self, message: Message[str], ack: Acknowledgment) -> None:
        try:
            self._mailer.send(
                recipient=message.key,
                text=message.event,
                event_id=message.event_id,
                correlation_id=message.correlation_id,
            )
        except MailServerUnavailable as error:
            ack.nack(self._went_down(str(error)))
            return
        except MailRefused as error:
            if error.by_server:
                self._answered()
            raise
        self._answered()
        ack.acknowledge()

    def _went_down(self, trouble: str) -> float:
        """Seconds until the mail is tried again: as long as it has been down, within limits."""
        with self._lock:
            now = time.monotonic()
            if self._down_since is None:
                self._down_since = now
                log.warning("%s; mail waits", trouble)
            self._trouble = trouble
            return min(max(now - self._down_since, SHORTEST_WAIT_S), LONGEST_WAIT_S)

    def _answered(self) -> None:
        if self._down_since is None:
            return
        with self._lock:
            if self._down_since is not None:
                log.info("mail goes on after %.0f s", time.monotonic() - self._down_since)
                self._down_since = self._trouble = None
