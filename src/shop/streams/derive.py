"""All derived streams, in one process."""

import logging
import threading
from collections.abc import Callable
from decimal import Decimal

from shop.kafka.admin import require_topics
from shop.kafka.connection import Connection
from shop.streams import orders, pix
from shop.streams.application import StreamApplication, cannot_go_on
from shop.topics import (
    ORDER_APPROVED,
    ORDER_REJECTED,
    ORDERS_PER_MINUTE,
    PIX,
    PIX_SUM_BY_KEY,
    PIX_VERIFICATION,
)

log = logging.getLogger(__name__)

SOURCES = (PIX, ORDER_APPROVED, ORDER_REJECTED)
DERIVED = (PIX_VERIFICATION, PIX_SUM_BY_KEY, ORDERS_PER_MINUTE)


def derive(
    connection: Connection,
    application: StreamApplication,
    *,
    pix_limit: Decimal,
    ready: Callable[[], None],
    stop: threading.Event,
) -> None:
    """Derive until `stop` is set, then commit what is in hand. `ready` is called once, when
    partitions are assigned.

    Raises TopicMissing, BrokerUnreachable, or KafkaError when it cannot go on; started again, it
    goes on where it last committed."""
    require_topics(connection, [topic.name for topic in (*SOURCES, *DERIVED)])
    with cannot_go_on():
        pix.define(application, pix_limit)
        orders.define(application)

    def assigned() -> None:
        log.info("deriving: %s", ", ".join(topic.name for topic in DERIVED))
        ready()

    application.run_until(stop, assigned)
    log.info("stopped")
