"""A broker as a group's consumers see it: logs in memory, and partitions that come and go.

As librdkafka does it where that matters. Callbacks run inside `consume`. A pause is the consumer's,
and outlives seeks and rebalances. What was fetched of a partition before it went is not handed out
after. An expelled member reads on until it learns of it, but commits nothing.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import OFFSET_STORED, KafkaException, TopicPartition
from confluent_kafka import KafkaError as Code

from shop.kafka.store import Partition
from shop.kafka.wire import Headers


@dataclass(frozen=True)
class ModelRecord:
    """Stands for a confluent_kafka.Message. An `error_` of a partition comes as a record too."""

    place: Partition
    offset_: int
    key_: bytes | None = None
    value_: bytes | None = None
    headers_: Headers = field(default_factory=list)
    error_: Code | None = None

    def topic(self) -> str:
        return self.place.topic

    def partition(self) -> int:
        return self.place.number

    def offset(self) -> int:
        return self.offset_

    def key(self) -> bytes | None:
        return self.key_

    def value(self) -> bytes | None:
        return self.value_

    def headers(self) -> Headers:
        return self.headers_

    def timestamp(self) -> tuple[int, int]:
        return 1, self.offset_

    def error(self) -> Code | None:
        return self.error_


class ModelBroker:
    """The logs, and one group's coordinator. An offset that holds None is a gap."""

    def __init__(self, partitions: Iterable[Partition]) -> None:
        self.logs: dict[Partition, list[ModelRecord | None]] = {p: [] for p in partitions}
        self.committed: dict[Partition, int] = {}
        self.members: list[ModelConsumer] = []
        self.owners: dict[Partition, ModelConsumer] = {}
        self.stumbled_over: list[ModelRecord] = []
        self._moving: dict[Partition, ModelConsumer] = {}

    def append(
        self, partition: Partition, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        log = self.logs[partition]
        log.append(ModelRecord(partition, len(log), key, value, headers))

    def join(self, member: "ModelConsumer") -> None:
        self.members.append(member)
        self._spread()

    def expel(self, member: "ModelConsumer") -> None:
        """Its session has ended, or it left; what it had goes to others. It is not told."""
        self.members.remove(member)
        member.events.clear()
        for partition in [p for p, owner in self.owners.items() if owner is member]:
            del self.owners[partition]
            self._moving.pop(partition, None)
        self._spread()

    def move(self, partition: Partition, to: "ModelConsumer") -> None:
        """Cooperatively: another member gets it when its owner has let go of it."""
        if partition not in self._moving and self.owners[partition] is not to:
            self._moving[partition] = to
            self.owners[partition].events.append(("revoke", [partition]))

    def released(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            del self.owners[partition]
            to = self._moving.pop(partition, None)
            if to in self.members:
                self._give(partition, to)
        self._spread()

    def _spread(self) -> None:
        for partition in self.logs:
            if self.members and partition not in self.owners:
                owned = Counter(self.owners.values())
                self._give(partition, min(self.members, key=lambda member: owned[member]))

    def _give(self, partition: Partition, member: "ModelConsumer") -> None:
        self.owners[partition] = member
        member.events.append(("assign", [partition]))


class ModelConsumer:
    """What Intake uses of a consumer. `rebalance_after` and `stumbles` are set before a turn."""

    def __init__(self, broker: ModelBroker) -> None:
        self.events: deque[tuple[str, list[Partition]]] = deque()
        self.rebalance_after = (
            0  # 0 to 3: before or after records are taken, in the 1st or 2nd call
        )
        self.stumbles = False  # once a record is not handed out, though a later one is
        self.assignments: Counter[Partition] = Counter()  # how often each was assigned
        self._broker = broker
        self._next: dict[Partition, int | None] = {}  # None: the broker has no such offset
        self._placed: set[Partition] = set()  # by an offset that the consumer itself was told
        self._untold: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._callbacks: dict[str, Callable[[Any, list[TopicPartition]], None]] = {}

    def subscribe(self, _topics: Sequence[str], **callbacks: Any) -> None:
        self._callbacks = {name.removeprefix("on_"): call for name, call in callbacks.items()}
        self._broker.join(self)

    def learn_of_expulsion(self) -> None:
        """It is told at its next call, and joins again."""
        self.events.append(("lost", list(self._next)))
        self._broker.join(self)

    def close(self) -> None:
        if self in self._broker.members:
            self._call_back("revoke", list(self._next))
            self._broker.expel(self)

    def consume(self, count: int, timeout: float) -> list[ModelRecord]:
        self._rebalance()
        batch = self._take(count)
        gone = self._rebalance()
        return [record for record in batch if record.place not in gone]

    def _rebalance(self) -> set[Partition]:
        """Those that went, if only for a moment."""
        if self.rebalance_after > 0:
            self.rebalance_after -= 1
            return set()
        gone: set[Partition] = set()
        while self.events:
            what, partitions = self.events.popleft()
            self._call_back(what, partitions)
            if what != "assign":
                gone.update(partitions)
            if what == "revoke":
                self._broker.released(partitions)
        return gone

    def _call_back(self, what: str, partitions: list[Partition]) -> None:
        self._callbacks[what](self, [TopicPartition(*partition) for partition in partitions])
        if what != "assign":
            for partition in partitions:
                self._forget(partition)

    def _take(self, count: int) -> list[ModelRecord]:
        batch: list[ModelRecord] = []
        for partition in sorted(self._untold):
            error = Code(Code._AUTO_OFFSET_RESET, "no such offset")
            batch.append(ModelRecord(partition, -1, error_=error))
        self._untold.clear()
        took = True
        while took:
            took = False
            for partition in self._next:
                if len(batch) < count and (record := self._one(partition)) is not None:
                    batch.append(record)
                    took = True
        return batch

    def _one(self, partition: Partition) -> ModelRecord | None:
        at = self._next[partition]
        if at is None or partition in self._paused:
            return None
        there = [record for record in self._broker.logs[partition][at:] if record is not None]
        if self.stumbles and len(there) > 1 and partition in self._placed:
            self.stumbles = False
            if there[0] not in self._broker.stumbled_over:
                self._broker.stumbled_over.append(there[0])
                del there[0]
        if not there:
            return None
        self._next[partition] = there[0].offset_ + 1
        return there[0]

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self._paused.update(p for p in map(_known, partitions) if p in self._next)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self._paused.difference_update(map(_known, partitions))

    def seek(self, target: TopicPartition) -> None:
        if self._next.get(_known(target)) is None:
            raise KafkaException(Code(Code._UNKNOWN_PARTITION, "not assigned"))
        self._next[_known(target)] = target.offset

    def incremental_assign(self, targets: Sequence[TopicPartition]) -> None:
        for target in targets:
            partition = _known(target)
            if partition in self._next:
                raise KafkaException(Code(Code._CONFLICT, "assigned already"))
            stored = target.offset == OFFSET_STORED
            offset = self._broker.committed.get(partition) if stored else target.offset
            self._next[partition] = offset
            self.assignments[partition] += 1
            if not stored:
                self._placed.add(partition)
            if offset is None:
                self._untold.add(partition)

    def incremental_unassign(self, targets: Sequence[TopicPartition]) -> None:
        for target in targets:
            self._forget(_known(target))

    def _forget(self, partition: Partition) -> None:
        del self._next[partition]
        self._placed.discard(partition)
        self._untold.discard(partition)

    def commit(self, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        mine = [t for t in offsets if self._broker.owners.get(_known(t)) is self]
        if not asynchronous and len(mine) < len(offsets):
            raise KafkaException(Code(Code.ILLEGAL_GENERATION, "not a member"))
        self._broker.committed.update({_known(t): t.offset for t in mine})

    def committed(self, targets: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        found = self._broker.committed
        return [TopicPartition(*_known(t), found.get(_known(t), -1001)) for t in targets]

    def get_watermark_offsets(self, target: TopicPartition, **_: Any) -> tuple[int, int]:
        return 0, len(self._broker.logs[_known(target)])


def _known(target: TopicPartition) -> Partition:
    return Partition(target.topic, target.partition)
