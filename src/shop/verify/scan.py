"""Reading a topic from its beginning to its end, and holding each record against every group that
has gone past it.

The positions were read before. A receipt, an effect and a dead letter are written together with the
position, or before it; so what is not there now of a record before it never will be.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import select

from shop.fraud.model import Decision
from shop.kafka.browse import RawRecord, TopicReader
from shop.kafka.connection import Connection
from shop.kafka.dispatch import Incoming
from shop.kafka.errors import WireError
from shop.kafka.letter import REDRIVE_OF
from shop.kafka.store import Partition
from shop.kafka.wire import Message
from shop.topics import ORDER_APPROVED, ORDER_REJECTED, order_identity
from shop.verify.effects import EFFECTS
from shop.verify.groups import Group, decoded
from shop.verify.hops import HOPS, followed_by, sent_by, subject_of
from shop.verify.horizons import Horizons
from shop.verify.letters import Letters
from shop.verify.mails import mail_of
from shop.verify.positions import Others
from shop.verify.redrives import note_sent_again
from shop.verify.report import Example, Kind, Notes, example_of, place
from shop.verify.scratch import Scratch, key, short

T = TypeVar("T")

BATCH = 500  # records that a database is asked about at once

# Groups that other programs may stand in for, without anybody seeing what these did.
SWAPPED = ("email", "users", "batch", "reports", "pix")

LEFT_TO_OTHERS = "records left to other programs"
PASSED_OVER = "records passed over"
HOW_TO_HANDLE = (
    "stop the group and set its position back to the first of them; what it has handled it knows "
    "by its receipts"
)
_REDO = (
    "its receipt says that it was handled: delete the receipt, stop the group and set its position "
    "back, and it is handled again"
)
_MAIL = "delete the receipt of the event and set the position of group email back to send it again"
_OTHERWISE = "an event was sent that did not come from the decision; find out who sent it"


class Scan:
    def __init__(
        self,
        connection: Connection,
        groups: Sequence[Group],
        scratch: Scratch,
        notes: Notes,
        letters: Letters,
        *,
        horizons: Horizons,
        since: int | None,
        mails_are_kept: bool,
    ) -> None:
        self.records = 0
        self._connection = connection
        self._groups = groups
        self._scratch = scratch
        self._notes = notes
        self._letters = letters
        self._others = Others(connection)
        self._horizons = horizons
        self._since = since
        self._mails_are_kept = mails_are_kept

    def dead_letters(self, topic: str) -> None:
        """All of them, however old, since what became of them may be as old."""
        with closing(TopicReader(self._connection, topic)) as reader:
            self._letters.add(self._counted(reader.read(reader.beginning)))

    def topic(self, topic: str, judges: Iterable[Group]) -> None:
        """`judges`: the groups that have receipts for its records."""
        judges = list(judges)
        # Not the log, which reads anything, also what is no event of its topic.
        readers = [one for one in self._groups if one.reads(topic) and one.gives_receipts]
        with closing(TopicReader(self._connection, topic)) as reader:
            begin = reader.beginning
            starts = begin if self._since is None else reader.at_time(self._since)
            self._horizons.begin(topic, self._since or 0)
            first = {number for number, at in starts.items() if at == begin[number] > 0}
            for batch in _batches(self._counted(reader.read(starts)), BATCH):
                for record in batch:
                    if record.partition in first:
                        first.discard(record.partition)
                        self._horizons.begin(topic, record.timestamp)
                read = {group.name: [decoded(group, topic, r) for r in batch] for group in readers}
                note_sent_again(self._scratch, topic, batch)
                self._remember(topic, batch, read.values())
                for group in judges:
                    self._judge(group, topic, batch, read[group.name])
            if first:  # emptied
                self._horizons.begin(topic, round(time.time() * 1000))

    def _counted(self, records: Iterator[RawRecord]) -> Iterator[RawRecord]:
        for record in records:
            self.records += 1
            yield record

    def _remember(
        self,
        topic: str,
        batch: Sequence[RawRecord],
        read: Iterable[Sequence[Incoming | WireError | None]],
    ) -> None:
        """Each event by where it was first published."""
        number = self._scratch.topic(topic)
        rows: list[tuple[Any, ...]] = []
        again: list[tuple[Any, ...]] = []
        messages = []
        for record, *readings in zip(batch, *read, strict=True):
            message = next((i.message for i in readings if isinstance(i, Incoming)), None)
            if message is None:
                continue
            messages.append(message)
            subject = subject_of(message)
            row = (number, key(message.event_id), subject and key(subject), short(record.key))
            redriven = message.header(REDRIVE_OF) is not None
            (again if redriven else rows).append((*row, record.partition, record.offset))
        published_again = len(rows) - self._scratch.insert("record", rows)
        self._scratch.insert("record", again)
        self._notes.remark("records published again after a crash", topic, published_again)
        self._notes.remark("records redriven", topic, len(again))
        if topic in (ORDER_APPROVED.name, ORDER_REJECTED.name):
            self._check_decisions(messages)

    def _judge(
        self,
        group: Group,
        topic: str,
        batch: Sequence[RawRecord],
        read: Sequence[Incoming | WireError | None],
    ) -> None:
        passed = [
            (record, incoming)
            for record, incoming in zip(batch, read, strict=True)
            if incoming is not None and group.has_passed(topic, record)
        ]
        receipts = [i.receipt for _, i in passed if isinstance(i, Incoming) and i.receipt]
        seen = group.seen(receipts)
        handled = []
        for record, incoming in passed:
            if isinstance(incoming, Incoming) and incoming.receipt in seen:
                handled.append((record, incoming))
            elif not self._letters.has(group.name, topic, record):
                self._passed_over(group, topic, record, incoming)
        self._expect(group, topic, handled)
        self._check_effects(group, [incoming.message for _, incoming in handled])

    def _passed_over(
        self, group: Group, topic: str, record: RawRecord, incoming: Incoming | WireError
    ) -> None:
        """Lost, unless another program has handled it before a hand-over to the group."""
        if group.name in HOPS and isinstance(incoming, Incoming):  # then something follows
            hop = list(HOPS).index(group.name)
            subject = key(followed_by(group.name, incoming.message))
            self._scratch.insert("passed_over", [(hop, subject, record.partition, record.offset)])
            return
        if group.name in SWAPPED:
            at = Partition(topic, record.partition)
            others = self._others.beyond(at, record.offset)
            if others:
                what = f"{LEFT_TO_OTHERS} ({', '.join(others)})"
                self._notes.remark(what, f"group {group.name}")
                return
        where = f"group {group.name}"
        example = Example(record=place(topic, record.partition, record.offset))
        self._notes.found(Kind.LOST, PASSED_OVER, where, HOW_TO_HANDLE, example)

    def _expect(
        self, group: Group, topic: str, handled: Sequence[tuple[RawRecord, Incoming]]
    ) -> None:
        if group.name not in HOPS:
            return
        hop = list(HOPS).index(group.name)
        rows = [
            (
                hop,
                key(sent_by(group.name, incoming)),
                key(order_identity(incoming.message)),
                record.partition,
                record.offset,
                record.timestamp,
                not self._letters.has(group.name, topic, record),
            )
            for record, incoming in handled
        ]
        self._scratch.insert("expected", rows)

    def _check_effects(self, group: Group, messages: Sequence[Message[Any]]) -> None:
        if group.name == "email" and self._mails_are_kept:
            self._check_mails(messages)
        effect = EFFECTS.get(group.name)
        if effect is None or not messages or group.database is None:
            return
        with group.database.read() as connection:
            missing = effect.missing(connection, messages)
        for name, message in missing:
            if self._scratch.first_told(f"effect of {group.name}", key(name)):
                example = example_of(message, name)
                where = f"group {group.name}"
                self._notes.found(effect.kind, effect.what, where, _REDO, example)

    def _check_mails(self, messages: Sequence[Message[Any]]) -> None:
        for message in messages:
            id_ = mail_of(message.event_id)
            if self._scratch.one("SELECT 1 FROM mail WHERE id = ?", [id_]):
                continue
            if self._scratch.first_told("mail", id_):
                what, example = "mails that were asked for", example_of(message)
                self._notes.found(Kind.UNMAILED, what, "group email", _MAIL, example)

    def _check_decisions(self, messages: Sequence[Message[Any]]) -> None:
        """The events must say what the rows say."""
        fraud = next(group for group in self._groups if group.name == "fraud")
        if fraud.database is None or not messages:
            return
        ids = {order_identity(message) for message in messages}
        query = select(Decision.order_id, Decision.is_fraud).where(Decision.order_id.in_(ids))
        with fraud.database.read() as connection:
            decided = {row.order_id: row.is_fraud for row in connection.execute(query)}
        for message in messages:
            order_id = order_identity(message)
            rejected = message.topic == ORDER_REJECTED.name
            if decided.get(order_id, rejected) != rejected:
                what, example = "events that contradict the decision", example_of(message, order_id)
                self._notes.found(Kind.DECIDED_TWICE, what, "group fraud", _OTHERWISE, example)


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(items, size)):
        yield batch
