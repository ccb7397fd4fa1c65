"""A group's dispatcher and settlement that measure: put in place of those that do not, so that a
group without metrics pays nothing."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter, time
from typing import Any, TypeAlias

from shop.kafka.dead_letter import Failure
from shop.kafka.dispatch import Dispatcher, Incoming, Record
from shop.kafka.listener import Endpoint
from shop.kafka.metrics import ListenerMetrics, Outcome
from shop.kafka.positions import Positions
from shop.kafka.settlement import Settlement
from shop.kafka.wire import Message, redriven_to

# One that returned: its message, and when it began and ended, by time.perf_counter. A plain tuple,
# since one is made for each record.
Call: TypeAlias = tuple[Message[Any], float, float]


class MeasuredDispatcher(Dispatcher):
    """Notes, for the thread that calls, what it called and what was a repeat."""

    def __init__(self, group: str, endpoints: Sequence[Endpoint], metrics: ListenerMetrics) -> None:
        super().__init__(group, endpoints)
        self.metrics = metrics
        self._call_it = super().call
        self._noted = threading.local()

    def begin(self) -> tuple[list[Call], list[Message[Any]]]:
        """What this thread calls from now on, and what it takes for a repeat."""
        noted = self._noted
        noted.calls, noted.repeats = [], []
        return noted.calls, noted.repeats

    def call(self, index: int, incoming: Incoming, work: Any) -> None:
        began = perf_counter()
        try:
            self._call_it(index, incoming, work)
        except BaseException:
            self.took(incoming.message.topic, [perf_counter() - began])
            raise
        self._noted.calls.append((incoming.message, began, perf_counter()))

    def repeated(self, incoming: Incoming) -> None:
        super().repeated(incoming)
        self._noted.repeats.append(incoming.message)

    def took(self, topic: str, seconds: Sequence[float]) -> None:
        shown = self.metrics.topic(topic)
        self.metrics.calls.series(group=self.group, topic=shown).record(seconds)


class MeasuredSettlement:
    """Another one, measured."""

    def __init__(self, settlement: Settlement, dispatcher: MeasuredDispatcher) -> None:
        self.atomic = settlement.atomic
        self._settlement = settlement
        self._dispatcher = dispatcher
        self._group = dispatcher.group
        self._metrics = dispatcher.metrics

    def settle(
        self, records: Sequence[Record], positions: Positions, stopping: threading.Event
    ) -> None:
        calls, repeats = self._dispatcher.begin()
        returned = False
        try:
            self._settlement.settle(records, positions, stopping)
            returned = True
        finally:
            by_topic = _by_topic(calls)
            for topic, of_topic in by_topic.items():
                self._dispatcher.took(topic, [ended - began for _, began, ended in of_topic])
            if not self.atomic:
                records = [r for r in records if not positions.awaits(r.partition, r.offset)]
            if returned and len(calls) + len(repeats) == len(records):
                self._tell(by_topic, repeats)
            elif returned or not self.atomic:
                self._tell_some(records, calls, repeats)

    def bury(self, record: Record, failure: Failure, positions: Positions) -> None:
        self._settlement.bury(record, failure, positions)

    def _tell(self, calls: Mapping[str, Sequence[Call]], repeats: Iterable[Message[Any]]) -> None:
        """Of calls, by topic, and repeats that are settled."""
        now, clock = time(), perf_counter()
        for topic, of_topic in calls.items():
            # Where a batch is not one transaction, each record is settled right after its call.
            ages = [
                (now if self.atomic else now - clock + ended) - message.timestamp / 1000
                for message, _, ended in of_topic
                if message.timestamp >= 0
            ]
            shown = self._metrics.topic(topic)
            self._metrics.ages.series(group=self._group, topic=shown).record(ages)
            self._metrics.count(self._group, topic, "handled", len(of_topic))
        self._count("duplicate", (message.topic for message in repeats))

    def _tell_some(
        self, settled: Sequence[Record], calls: Sequence[Call], repeats: Sequence[Message[Any]]
    ) -> None:
        """Some of what was called is not settled; or some that is settled was not called: it is
        for another group, was held back, or was done before the store was away."""
        left = {(*record.partition, record.offset): record for record in settled}
        self._tell(
            _by_topic([call for call in calls if left.pop(_place(call[0]), None)]),
            [message for message in repeats if left.pop(_place(message), None)],
        )
        held_back = [record for record in left.values() if self._is_held_back(record)]
        self._count("dead", (record.partition.topic for record in held_back))
        passed = left.keys() - {(*record.partition, record.offset) for record in held_back}
        self._count("handled", (topic for topic, _, _ in passed))

    def _count(self, outcome: Outcome, topics: Iterable[str]) -> None:
        for topic, records in Counter(topics).items():
            self._metrics.count(self._group, topic, outcome, records)

    def _is_held_back(self, record: Record) -> bool:
        other = redriven_to(record.raw.headers() or []) not in (None, self._group)
        return self._dispatcher.holds_back and not other


def _by_topic(calls: Sequence[Call]) -> Mapping[str, Sequence[Call]]:
    topics = {call[0].topic for call in calls}
    if len(topics) == 1:
        return {topics.pop(): calls}
    return {topic: [call for call in calls if call[0].topic == topic] for topic in topics}


def _place(message: Message[Any]) -> tuple[str, int, int]:
    return message.topic, message.partition, message.offset
