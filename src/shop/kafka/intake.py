"""What comes in from Kafka for one consumer: the partitions it holds, their records in order."""

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_STORED, KafkaException, TopicPartition
from confluent_kafka import KafkaError as Code

from shop.kafka.client import GroupClient
from shop.kafka.connection import Connection, Reachability
from shop.kafka.dispatch import Record
from shop.kafka.errors import KafkaError, StoreUnavailable, TopicMissing
from shop.kafka.positions import Positions, Reading
from shop.kafka.recognition import Recognition
from shop.kafka.retry import Waiting
from shop.kafka.starting import starting_offset
from shop.kafka.store import Partition, Store

log = logging.getLogger(__name__)

POLL_S = 0.25  # how long an idle poll waits, and so how soon a stop is noticed
MISSING_TOPIC_GRACE_S = 30.0  # a broker that has just started may not know all topics yet
COMMIT_EVERY_S = 1.0  # to Kafka, where a store has the positions: for lag tools only
STORE_AGAIN_S = 0.5
PROBE_S = 2.0

_MISSING = {Code.UNKNOWN_TOPIC_OR_PART, Code._UNKNOWN_TOPIC, Code._UNKNOWN_PARTITION}
_FINAL = {Code.TOPIC_AUTHORIZATION_FAILED, Code.GROUP_AUTHORIZATION_FAILED, Code._FATAL}


class Intake:
    """The Quix consumer with its rebalances, positions, pauses and commits.

    It starts each partition where the store says; without a stored position where the group has
    committed; else as `recognition` resets. Used by one thread; `assigned`, `store_trouble` and
    `reachability` may be read, and `stopping` set, by any.
    """

    def __init__(
        self,
        connection: Connection,
        group: str,
        topics: Sequence[str],
        store: Store | None,
        *,
        name: str,
        max_poll_records: int,
        recognition: Recognition,
        stopping: threading.Event,
        reachability: Reachability,
        extra_config: Mapping[str, Any],
    ) -> None:
        self.positions = Positions()
        self.assigned = threading.Event()
        self.store_trouble: str | None = None
        self._group = group
        self._topics = list(topics)
        self._store = store
        self._most = max_poll_records
        self.recognition = recognition
        self._stopping = stopping
        self.reachability = reachability
        self._waiting = Waiting()
        self._revoked: set[Partition] = set()
        self._reading = Reading()
        self._unplaced: set[Partition] = set()
        self._missing_due: float | None = None  # when to ask whether the topics are there
        self._committed: dict[Partition, int] = {}
        self._commit_due = 0.0
        self._probe_due = 0.0
        self.polled = (0, 0)  # when the last poll began and ended, in ns since the epoch
        self._client = GroupClient(
            connection, group, topics, reachability, name=name, extra_config=extra_config
        )

    def open(self) -> None:
        self._client.subscribe(
            on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    @property
    def client_id(self) -> str:
        return self._client.id

    def close(self) -> None:
        """Commit and leave the group."""
        try:
            self.commit(final=True)
        finally:
            self._client.consumer.close()  # type: ignore[no-untyped-call]

    def poll(self) -> list[Record]:
        """What is there at once, at most max_poll_records; waits only for the first, POLL_S."""
        for partition in self._waiting.take_due():
            if partition in self.positions and partition not in self.recognition:
                self._client.consumer.resume([TopicPartition(*partition)])
        if self._unplaced:
            self._place_all()
        self.recognition.release(self._client.consumer)
        if self._missing_due is not None and time.monotonic() > self._missing_due:
            self._require_topics()
        if self._client.down and time.monotonic() > self._probe_due:
            self._probe()
        began = time.time_ns()
        first = self._take(1, min(POLL_S, self._waiting.until_due()))
        if self._most > 1 and (first or self._unplaced):
            self._revoked.clear()
            rest = self._take(self._most - 1, 0)
            # A partition may have gone during the second call, even gone and come back elsewhere.
            first = [record for record in first if record.partition not in self._revoked] + rest
        self.polled = (began, time.time_ns())
        return first

    def pause(self, partitions: Iterable[Partition], delay: float) -> None:
        """No records of these partitions for `delay` seconds; the group's membership stays."""
        for partition in partitions:
            self._client.consumer.pause([TopicPartition(*partition)])
            self._waiting.add(partition, delay)

    def seek(self, starts: Mapping[Partition, int]) -> None:
        for partition, offset in starts.items():
            self._reading.start(partition, offset)
            self._client.consumer.seek(TopicPartition(*partition, offset))

    def _take(self, count: int, timeout: float) -> list[Record]:
        records = []
        takes, unplaced = self._reading.takes, self._unplaced
        raw: Any
        for raw in self._client.consume(count, timeout):
            error = raw.error()
            if error is not None:
                self._on_error(raw, error)
                continue
            partition = Partition(raw.topic(), raw.partition())
            offset = raw.offset()
            if (not unplaced or partition not in unplaced) and takes(partition, offset):
                records.append(Record(partition, offset, raw))
        for partition, offset in self._reading.to_read_again().items():
            try:
                self.seek({partition: offset})
            except KafkaException as error:  # after some errors it cannot
                log.debug("group %s: %s", self._group, error)
                self._unplaced.add(partition)
        if records:
            self._client.answered()
        return records

    def _require_topics(self) -> None:
        """A topic was said to be missing some time ago. Raises TopicMissing if it still is."""
        existing = self._client.topics_there()
        if existing is None:
            return
        self._missing_due = None
        missing = [name for name in self._topics if name[0] != "^" and name not in existing]
        if missing:
            raise TopicMissing(f"group {self._group}: {', '.join(missing)} does not exist any more")

    def _probe(self) -> None:
        self._probe_due = time.monotonic() + PROBE_S
        if self._client.probe():
            self._on_lost(None, [TopicPartition(*partition) for partition in self.positions.held])
            self._client.replace()

    def _on_error(self, raw: Any, error: Code) -> None:
        code = error.code()
        if code == Code._AUTO_OFFSET_RESET:
            self._unplaced.add(Partition(raw.topic(), raw.partition()))
        elif code in _MISSING:
            self._doubt(raw)
            if self._missing_due is None:  # it is said only once
                self._missing_due = time.monotonic() + MISSING_TOPIC_GRACE_S
        elif code == Code._MAX_POLL_EXCEEDED:
            log.warning(
                "group %s: a batch took longer than max.poll.interval.ms; joining again",
                self._group,
            )
        elif error.fatal() or code in _FINAL:
            raise KafkaError(f"group {self._group}: {error.str()}")
        else:
            self._doubt(raw)
            log.debug("group %s: %s", self._group, error.str())

    def _doubt(self, raw: Any) -> None:
        """After an error it is not left to librdkafka where it reads on: docs/decisions/0020."""
        expected = self._reading.expected
        if raw.topic() is None:  # maybe of the request for committed offsets
            self._unplaced.update(p for p, at in expected.items() if at is None)
            return
        partition = Partition(raw.topic(), raw.partition())
        if partition in expected and not self._reading.doubt(partition):
            self._unplaced.add(partition)

    def standing(self) -> dict[Partition, int]:
        """The offsets that the partitions are to be read at which wait for nothing."""
        if self.reachability.down or self.store_trouble:
            return {}
        waits = (self._waiting, self._unplaced, self.recognition)
        expected = self._reading.expected.items()
        return {p: at for p, at in expected if at is not None and not any(p in w for w in waits)}

    def stored(self, partitions: Iterable[Partition]) -> dict[Partition, int | None]:
        """The store's positions, None where it has none. Raises StoreUnavailable."""
        partitions = list(partitions)
        found = self._store.positions(self._group, partitions) if self._store else {}
        return {partition: found.get(partition) for partition in partitions}

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        # Runs inside consume(). No call to Kafka here: it would time out during a failover.
        mine = [Partition(target.topic, target.partition) for target in partitions]
        starts = self._stored_patiently(mine)
        if starts is None:
            return  # stopping; without a position nothing that comes is handled
        self.positions.assign(starts)
        for target, partition in zip(partitions, mine, strict=True):
            position = starts[partition]
            self._reading.start(partition, position)
            # OFFSET_STORED: what the group committed to Kafka, else _place_all.
            target.offset = OFFSET_STORED if position is None else position
        consumer.incremental_assign(partitions)
        self.recognition.assigned(consumer, partitions)
        self.assigned.set()

    def _stored_patiently(self, partitions: list[Partition]) -> dict[Partition, int | None] | None:
        """The store's positions, waiting for it; None when it is time to stop."""
        while True:
            try:
                stored = self.stored(partitions)
            except StoreUnavailable as error:
                self.store_trouble = str(error)
                if self._stopping.wait(STORE_AGAIN_S):
                    return None
            else:
                self.store_trouble = None
                return stored

    def _place_all(self) -> None:
        """The broker has no such offsets: a group that begins, or one whose records are gone.
        Tried again at the next poll while the broker does not answer. First all are looked up: an
        idle fetch holds up what is asked on its connection."""
        self._unplaced.intersection_update(self.positions.held)  # an error may come late
        starts = {p: offset for p in self._unplaced if (offset := self._start_of(p)) is not None}
        for partition, offset in starts.items():
            self._reading.start(partition, offset)
        self._unplaced.difference_update(starts)
        # Partitions in this state cannot seek; they are given to the client anew.
        self._client.consumer.incremental_unassign([TopicPartition(*p) for p in starts])
        self._client.consumer.incremental_assign(
            [TopicPartition(*p, at) for p, at in starts.items()]
        )

    def _start_of(self, partition: Partition) -> int | None:
        held = self.positions.held.get(partition)
        reset = self.recognition.reset_of(partition.topic)
        try:
            return starting_offset(self._client.consumer, self._group, partition, held, reset)
        except KafkaException as error:
            log.debug("group %s: %s", self._group, error)
            return None

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self.commit(final=True)
        self._on_lost(consumer, partitions)

    def _on_lost(self, _consumer: Any, partitions: list[TopicPartition]) -> None:
        gone = [Partition(target.topic, target.partition) for target in partitions]
        self.positions.revoke(gone)
        self._waiting.forget(gone)
        self.recognition.lost(gone)
        self._revoked.update(gone)
        self._unplaced.difference_update(gone)
        for partition in gone:
            self._committed.pop(partition, None)
            self._reading.stop(partition)

    def commit(self, final: bool = False) -> None:
        """Tell Kafka the positions. With a store that is for lag tools, so it may fail or lag;
        without one it is what the group goes by, after each batch and before a partition goes."""
        wait = final and self._store is None  # then also what an earlier commit may have failed at
        moved = {
            partition: position
            for partition, position in self.positions.held.items()
            if position is not None and (wait or self._committed.get(partition) != position)
        }
        now = time.monotonic()
        if not moved or (self._store is not None and not final and now < self._commit_due):
            return
        self._commit_due = now + COMMIT_EVERY_S
        offsets = [TopicPartition(*partition, offset) for partition, offset in moved.items()]
        try:
            self._client.consumer.commit(offsets=offsets, asynchronous=not wait)
        except KafkaException as error:
            level = logging.WARNING if wait else logging.DEBUG
            log.log(level, "group %s: not committed: %s", self._group, error.args[0].str())
            return
        self._committed.update(moved)
