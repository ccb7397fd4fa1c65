import logging
import time

from sqlalchemy import select

from shop.db.work import Work
from shop.events import Pix
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.listener import listener
from shop.kafka.wire import Message
from shop.pix.model import KeyRow, PaymentRow, Status
from shop.topics import PIX, pix_identity

log = logging.getLogger(__name__)

REMEMBERED = 100_000  # keys, some 12 MB; one that is not remembered costs a read, 80 µs


class PixValidator:
    """Decides on each payment once: it goes through between keys that are known.

    One that did not come by our API is added. Keys are never deleted, so those that were found
    once need not be asked for again. Thread-safe."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    @listener(PIX, group="pix", once=pix_identity)
    def decide(self, message: Message[Pix], work: Work, ack: Acknowledgment) -> None:
        pix = message.event
        identifier = pix_identity(message)
        valid = (
            pix.amount is not None
            and self._knows(pix.source_key, work)
            and self._knows(pix.target_key, work)
        )
        status = Status.PROCESSED if valid else Status.FAILED
        now = time.time_ns() // 1_000_000
        work.put(
            PaymentRow,
            update=("status", "decided_at"),
            identifier=identifier,
            source_key=pix.source_key,
            target_key=pix.target_key,
            amount=pix.amount,
            transferred_at=pix.transferred_at,
            status=status.value,
            correlation_id=message.correlation_id,
            created_at=message.timestamp if message.timestamp > 0 else now,
            decided_at=now,
        )
        log.debug("payment %s: %s", identifier, status.value)
        ack.acknowledge()

    def _knows(self, key: str | None, work: Work) -> bool:
        if key is None:
            return False
        if key in self._known:
            return True
        found = work.session.scalar(select(KeyRow.key).where(KeyRow.key == key)) is not None
        if found and len(self._known) < REMEMBERED:
            self._known.add(key)
        return found
