from typing import Any

import msgspec
from sqlalchemy import case

from shop.db.work import Work
from shop.deadletters.intake import LETTERS, Received, letter_identity, letter_of
from shop.deadletters.model import LetterEventRow, LetterRow, State, What, now
from shop.kafka import tracing
from shop.kafka.ids import derived_id
from shop.kafka.letter import Letter
from shop.kafka.listener import listener
from shop.kafka.wire import Message

_row: Any = LetterRow.__table__
_headers = msgspec.msgpack.Encoder()


class DeadLetterKeeper:
    """Keeps every dead letter until somebody has it redriven or discards it.

    Also those whose records were redriven to one group: other systems' letters still say so."""

    @listener(LETTERS, group="deadletter", once=letter_identity, observer=True)
    def keep(self, message: Message[Received], work: Work) -> None:
        letter = letter_of(message)
        at = _failed_at(message)
        newest = {
            "last_at": at,
            "exception": letter.exception,
            "message": letter.message,
            "stacktrace": letter.stacktrace,
            "attempts": letter.attempts,
            "correlation_id": letter.correlation_id,
            "traceparent": tracing.here_or_sender(message.headers),
            "letter_partition": message.partition,
            "letter_offset": message.offset,
        }
        work.add_if_absent(LetterRow, **_first(letter), **newest, first_at=at)
        queued = (_row.c.state == State.QUEUED, State.QUEUED.value)
        state = case(queued, else_=State.WAITING.value)
        work.count(LetterRow, "failures", {"id": letter.id}, **newest, state=state)
        work.add(
            LetterEventRow,
            letter=letter.id,
            at=at,
            what=What.FAILED.value,
            by=letter.group,
            detail=letter.message,
            partition=letter.partition,
            offset=letter.offset,
            exception=letter.exception,
        )


def _first(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "state": State.WAITING.value,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": letter.timestamp,
        "consumer_group": letter.group,
        "key_name": None if letter.key is None else derived_id("", letter.key.hex()),
        "failures": 0,  # until it is counted
        "event_id": letter.event_id,
        "headers": _headers.encode(letter.headers),
        "key": letter.key,
        "value": letter.value,
    }


def _failed_at(message: Message[Received]) -> int:
    """By the broker's or the sender's clock, but never in the future."""
    return min(message.timestamp, now()) if message.timestamp > 0 else now()
