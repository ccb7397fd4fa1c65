"""The outbox of a database: what is sent when the transaction that says so has committed."""

import time
from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection

from shop.db.tables import outbox
from shop.kafka.outbound import OutboundRecord

_headers = msgspec.msgpack.Encoder()


def write_outbox(connection: Connection, records: Sequence[OutboundRecord]) -> None:
    """Leave records in the outbox, in this order, within the connection's transaction."""
    if records:
        now = time.time_ns() // 1_000_000
        connection.execute(
            outbox.insert(),
            [
                {
                    "topic": record.topic,
                    "key": None if isinstance(record.key, bytes) else record.key,
                    "raw_key": record.key if isinstance(record.key, bytes) else None,
                    "value": record.value,
                    "headers": _headers.encode(record.headers),
                    "created_at": now,
                }
                for record in records
            ],
        )
