"""An order's way over the topics, as its audit records tell it."""

import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

import msgspec

from shop.http.moment import moment
from shop.kafka.tracing import sampled
from shop.log.reading import AuditReader, Kept
from shop.log.way import sender_of

# When an order was accepted, by its id; None for one that the API does not know.
Accepted: TypeAlias = Callable[[str], Awaitable[datetime | None]]

_TRACE = re.compile(r"\A[0-9a-f]{2}-([0-9a-f]{32})-")


class Repeat(StrEnum):
    EVENT = "event"  # the same event once more, which every listener passes over
    ORDER = "order"  # the same order under another correlation id


class Hop(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """A record on the order's way. `service` sent it, null where its correlation id does not tell.
    `after_ms` counts from the acceptance, else from the first record. `trace_id` is null where the
    trace was not sampled."""

    service: str | None
    topic: str
    partition: int
    offset: int
    type: str | None
    at: datetime
    after_ms: int
    event_id: str
    correlation_id: str
    trace_id: str | None
    repeat: Repeat | None


class Timeline(msgspec.Struct, frozen=True, rename="camel"):
    """`accepted_at` is null for an order that the API does not know. `cut`: there are more hops."""

    order_id: str
    accepted_at: datetime | None
    hops: Sequence[Hop]
    cut: bool = False


class Timelines:
    """Belongs to one event loop."""

    def __init__(self, reader: AuditReader, accepted: Accepted) -> None:
        self._reader = reader
        self._accepted = accepted

    async def of(self, order_id: str) -> Timeline | None:
        """None for an order that nobody knows. Raises StoreUnavailable."""
        if "\0" in order_id:  # PostgreSQL takes none
            return None
        accepted_at = await self._accepted(order_id)
        records, cut = await self._reader.of_order(order_id)
        if accepted_at is None and not records:
            return None
        return Timeline(order_id, accepted_at, hops(records, accepted_at), cut)

    def close(self) -> None:
        self._reader.close()


def hops(records: Sequence[Kept], accepted_at: datetime | None) -> list[Hop]:
    """In the order of time, what was sent before what came of it."""
    in_order = sorted(records, key=lambda r: (r.time, len(r.correlation_id), r.id))
    began = in_order[0].time if in_order else 0
    if accepted_at is not None:
        began = min(began, round(accepted_at.timestamp() * 1000))
    origins: dict[str, str] = {}
    events: set[tuple[str, str]] = set()
    result = []
    for record in in_order:
        repeat = None
        if (record.topic, record.event_id) in events:
            repeat = Repeat.EVENT
        elif origins.setdefault(record.topic, record.origin) != record.origin:
            repeat = Repeat.ORDER
        events.add((record.topic, record.event_id))
        result.append(_hop(record, began, repeat))
    return result


def _hop(record: Kept, began: int, repeat: Repeat | None) -> Hop:
    trace = _TRACE.match(record.traceparent or "")
    return Hop(
        sender_of(record.correlation_id),
        record.topic,
        record.partition,
        record.offset,
        record.type,
        moment(record.time),
        record.time - began,
        record.event_id,
        record.correlation_id,
        trace[1] if trace and sampled(record.traceparent) else None,
        repeat,
    )
