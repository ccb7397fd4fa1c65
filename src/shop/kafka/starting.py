"""Where a partition starts when the broker says that it has no such offset: docs/decisions/0006."""

from typing import Any

from confluent_kafka import TopicPartition

from shop.kafka.connection import Consumer
from shop.kafka.errors import PositionLost
from shop.kafka.store import Partition

ANSWER_S = 2.0  # seconds that a broker gets to answer


def starting_offset(
    consumer: Consumer, group: str, partition: Partition, position: int | None, reset: str
) -> int:
    """The offset to read next. `position` is the store's, None if it has none.

    A group that begins starts by `reset` (earliest, latest, none), and that is committed, so that a
    restart before its first record does not begin elsewhere. Raises PositionLost when the log no
    longer has what comes next, and KafkaException when the broker does not answer."""
    target: Any = TopicPartition(*partition)
    low, high = consumer.get_watermark_offsets(target, timeout=ANSWER_S)
    if position is None:
        (committed,) = consumer.committed([target], timeout=ANSWER_S)
        position = committed.offset if committed.offset >= 0 else None
    where = f"{partition.topic}[{partition.number}]"
    if position is not None:
        if low <= position <= high:
            return position  # it was out of range only while a leader changed
        why = (
            f"{low - position} records were deleted by retention"
            if position < low
            else "the topic was made anew, or the broker lost its data"
        )
        raise PositionLost(
            f"group {group} would go on at {position} in {where}, but the log holds {low} to "
            f"{high}: {why}; nothing was skipped. {HOW_TO_CHOOSE}"
        )
    if reset == "none":
        raise PositionLost(
            f"group {group} has no position in {where} and auto-offset-reset is none; choose "
            "earliest or latest"
        )
    target.offset = low if reset == "earliest" else high
    consumer.commit(offsets=[target], asynchronous=False)
    return int(target.offset)


HOW_TO_CHOOSE = (
    "Choose where it goes on: set its rows in the table position of its database, delete them and "
    "those in topic_read to begin anew, or take over another group's position (groups hand-over)"
)
