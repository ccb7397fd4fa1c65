"""What the events of the topics tell when they are held against one another."""

from collections.abc import Collection
from typing import Any

from shop.topics import (
    NEW_ORDER,
    ORDER_APPROVED,
    ORDER_REJECTED,
    SEND_EMAIL,
    USER_GENERATE_READING_REPORT,
)
from shop.verify.hops import HOPS
from shop.verify.horizons import Horizons
from shop.verify.report import Example, Kind, Notes, place
from shop.verify.scan import HOW_TO_HANDLE, LEFT_TO_OTHERS, PASSED_OVER
from shop.verify.scratch import Scratch, name_of

_UNSENT = (
    "its receipt says that it was handled: delete the receipt and the row it led to, stop the "
    "group and set its position back, and it is handled again"
)
_TWICE = "only the first should have been sent; find out who sent the other"
_TURN = "records of one key were handled out of turn: see the log of the group at that time"

_PASSED_OVER = """
SELECT partition, offset, EXISTS (
    SELECT 1 FROM record r WHERE r.topic IN ({topics}) AND r.subject = p.subject)
FROM passed_over p WHERE hop = ?
"""
_UNFOLLOWED = """
SELECT event, subject, partition, offset, at FROM expected e WHERE hop = ? AND at >= ?
AND NOT EXISTS (SELECT 1 FROM record r WHERE r.topic IN ({topics}) AND r.event = e.event)
AND NOT EXISTS (SELECT 1 FROM waiting w WHERE w.event = e.event)
"""
_OUT_OF_TURN = """
SELECT subject, topic, partition, offset, event FROM (
    SELECT e.subject, r.topic, r.partition, r.offset, r.event, e.offset AS turn,
        max(e.offset) OVER (
            PARTITION BY r.topic, r.partition, r.name, e.partition ORDER BY r.offset
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM expected e JOIN record r ON r.event = e.event AND r.topic IN ({topics})
    WHERE e.hop = ? AND e.in_turn)
WHERE before > turn
"""
# Of each group of rows the one with the largest offset.
_DECIDED_TWICE = """
SELECT subject, topic, partition, max(offset), event FROM record
WHERE topic IN ({topics}) AND subject IS NOT NULL GROUP BY subject HAVING count(*) > 1
"""
_SENT_TWICE = """
SELECT NULL, topic, partition, max(offset), event FROM record
WHERE topic = ? AND subject IS NOT NULL GROUP BY subject, name HAVING count(*) > 1
"""
_ASKED_TWICE = """
SELECT NULL, topic, partition, offset, event FROM record r
WHERE topic = ? AND subject IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM expected e WHERE e.hop = ? AND e.event = r.event)
AND EXISTS (SELECT 1 FROM record o JOIN expected e ON e.hop = ? AND e.event = o.event
    WHERE o.topic = r.topic AND o.subject = r.subject)
"""


class Events:
    def __init__(self, scratch: Scratch, horizons: Horizons, notes: Notes) -> None:
        self._scratch = scratch
        self._horizons = horizons
        self._notes = notes
        self._names = {scratch.topic(name): name for name in horizons.topics}

    def check(self) -> None:
        for hop, (group, targets) in enumerate(HOPS.items()):
            topics = [target.name for target in targets]
            self._passed_over(hop, group, topics)
            self._unfollowed(hop, group, topics)
            self._report(
                Kind.OUT_OF_ORDER, f"events of one key on {' or '.join(topics)}", f"group {group}",
                _TURN, _OUT_OF_TURN.format(topics=self._in(topics)), [hop],
            )  # fmt: skip
        decisions = self._in([ORDER_APPROVED.name, ORDER_REJECTED.name])
        self._report(
            Kind.DECIDED_TWICE, "orders with two decisions", "group fraud", _TWICE,
            _DECIDED_TWICE.format(topics=decisions), [],
        )  # fmt: skip
        reports = self._scratch.topic(USER_GENERATE_READING_REPORT.name)
        self._report(
            Kind.DUPLICATED, "records of a fan-out for one user", "group batch", _TWICE,
            _SENT_TWICE, [reports],
        )  # fmt: skip
        hop, mails = list(HOPS).index("email-new-order"), self._scratch.topic(SEND_EMAIL.name)
        self._report(
            Kind.DUPLICATED, "mails asked for by one order", "group email-new-order", _TWICE,
            _ASKED_TWICE, [mails, hop, hop],
        )  # fmt: skip

    def _passed_over(self, hop: int, group: str, topics: Collection[str]) -> None:
        query = _PASSED_OVER.format(topics=self._in(topics))
        where = f"group {group}"
        for partition, offset, followed in self._scratch.rows(query, [hop]):
            if followed:
                self._notes.remark(LEFT_TO_OTHERS, where)
                continue
            example = Example(record=place(NEW_ORDER.name, partition, offset))
            self._notes.found(Kind.LOST, PASSED_OVER, where, HOW_TO_HANDLE, example)

    def _unfollowed(self, hop: int, group: str, topics: Collection[str]) -> None:
        query = _UNFOLLOWED.format(topics=self._in(topics))
        what, where = f"events that must be on {' or '.join(topics)}", f"group {group}"
        rows = self._scratch.rows(query, [hop, self._horizons.asked])
        for event, subject, partition, offset, at in rows:
            if not self._horizons.judged(at, what, where, *topics):
                continue
            example = Example(
                name_of(subject), place(NEW_ORDER.name, partition, offset), name_of(event)
            )
            self._notes.found(Kind.LOST, what, where, _UNSENT, example)

    def _report(
        self, kind: Kind, what: str, where: str, advice: str, query: str, values: list[Any]
    ) -> None:
        for subject, topic, partition, offset, event in self._scratch.rows(query, values):
            record = place(self._names[topic], partition, offset)
            example = Example(name_of(subject), record, name_of(event))
            self._notes.found(kind, what, where, advice, example)

    def _in(self, topics: Collection[str]) -> str:
        return ", ".join(str(self._scratch.topic(topic)) for topic in topics)
