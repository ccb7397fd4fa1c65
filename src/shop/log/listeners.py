import logging
import time
from typing import Literal

from shop.db.work import Work
from shop.kafka.listener import every_record, listener
from shop.kafka.topic import TopicPattern
from shop.kafka.wire import Message
from shop.log.content import LONGEST, Content, ContentCodec, storable
from shop.log.model import AuditRecord
from shop.log.way import origin_of
from shop.printable import shortened, whole

log = logging.getLogger(__name__)

EVERY_TOPIC = TopicPattern("ECOMMERCE.*", ContentCodec())


class AuditLog:
    """Logs every record of the shop and keeps it as the audit trail."""

    def __init__(self, personal_data: Literal["short", "full"]) -> None:
        self._shown = shortened if personal_data == "short" else whole

    @listener(EVERY_TOPIC, group="log", once=every_record, observer=True)
    def note(self, message: Message[Content], work: Work) -> None:
        content = message.event
        key = message.raw_key
        if log.isEnabledFor(logging.INFO):
            log.info(
                "%s[%d]@%d %s %s",
                message.topic,
                message.partition,
                message.offset,
                self._shown(key),
                self._shown(content.value),
            )
        correlation_id = storable(message.correlation_id)
        work.add(
            AuditRecord,
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            timestamp=message.timestamp,
            stored_at=time.time_ns() // 1_000_000,
            type=content.type,
            event_id=storable(message.event_id)[:LONGEST],
            correlation_id=correlation_id,
            origin=origin_of(correlation_id),
            order_id=content.order_id,
            traceparent=message.traceparent and storable(message.traceparent)[:LONGEST],
            key=key,
            value=content.value,
        )
