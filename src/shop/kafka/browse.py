"""Reading a topic from anywhere, for looking only: no group is joined, nothing is committed."""

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka import KafkaError as Code

from shop.kafka.admin import require_topics
from shop.kafka.connection import Connection, Consumer, Reachability, silent
from shop.kafka.errors import BrokerUnreachable, KafkaError, TopicMissing
from shop.kafka.offsets import log_bounds, offsets_at
from shop.kafka.store import Partition

STALL_S = 10.0  # without a sign of life, while there is more to read
MOST_WAITING = 2000  # records of a partition that wait for those of another

_GONE = (Code.UNKNOWN_TOPIC_OR_PART, Code._UNKNOWN_TOPIC, Code._UNKNOWN_PARTITION)


class RawRecord(NamedTuple):
    """A record as it lies in the log. `timestamp`: milliseconds since the epoch, -1 if none."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class TopicReader:
    """The partitions of a topic (all, or those named) between the bounds that they have when this
    is built: records of a transaction that is open then come after the end. For one thread; close
    it.

    Raises BrokerUnreachable, TopicMissing, or KafkaError for a partition that does not exist."""

    def __init__(
        self,
        connection: Connection,
        topic: str,
        partitions: Sequence[int] = (),
        timeout: float = 8.0,
    ) -> None:
        require_topics(connection, [topic], timeout)
        there = sorted(connection.metadata(timeout).topics[topic].partitions)
        for number in partitions:
            if number not in there:
                raise KafkaError(f"topic {topic} has partitions 0 to {there[-1]}, not {number}")
        self._connection = connection
        self._topic = topic
        self._timeout = timeout
        chosen = [Partition(topic, number) for number in partitions or there]
        found = log_bounds(connection, chosen, timeout, isolation=IsolationLevel.READ_COMMITTED)
        self.bounds = {partition.number: found[partition] for partition in chosen}
        self._reachability = Reachability(f"reader of {topic}")
        self._consumer = Consumer(
            connection.address(), "shop-reader", "earliest", auto_commit_enable=False,
            logger=silent, error_callback=self._reachability.failed,
            extra_config=connection.client_config("browser")
            # A fetch that waits for more holds up one that begins elsewhere.
            | {"enable.partition.eof": True, "fetch.wait.max.ms": 50},
        )  # fmt: skip

    def close(self) -> None:
        self._consumer.close()  # type: ignore[no-untyped-call]

    @property
    def beginning(self) -> dict[int, int]:
        return {number: bounds.low for number, bounds in self.bounds.items()}

    @property
    def end(self) -> dict[int, int]:
        return {number: bounds.high for number, bounds in self.bounds.items()}

    def at_offset(self, offset: int) -> dict[int, int]:
        """That offset in each partition, or the bound nearest to it; KafkaError when no partition
        has it."""
        if not any(bounds.low <= offset <= bounds.high for bounds in self.bounds.values()):
            held = ", ".join(
                f"{low} to {high} in [{number}]" for number, (low, high) in self.bounds.items()
            )
            raise KafkaError(
                f"offset {offset} is out of range: {self._topic} has offsets from first to next "
                f"{held}"
            )
        return {n: min(max(offset, low), high) for n, (low, high) in self.bounds.items()}

    def at_time(self, moment: int) -> dict[int, int]:
        """The first records that are not older than `moment`, milliseconds since the epoch."""
        partitions = [Partition(self._topic, number) for number in self.bounds]
        found = offsets_at(self._connection, partitions, moment, self._timeout)
        return {
            number: self.bounds[number].high if offset is None else offset
            for (_, number), offset in found.items()
        }

    def read(self, starts: Mapping[int, int]) -> Iterator[RawRecord]:
        """From `starts` to the end as it was: by timestamp over the partitions, each in its own
        order."""
        more = {number for number, start in starts.items() if start < self.bounds[number].high}
        waiting: dict[int, deque[RawRecord]] = {number: deque() for number in more}
        self._assign({number: starts[number] for number in more})
        paused: set[int] = set()
        while waiting:
            if all(waiting[number] for number in more):
                first = min(waiting, key=lambda number: waiting[number][0].timestamp)
                yield waiting[first].popleft()
                if not waiting[first] and first not in more:
                    del waiting[first]
                continue
            self._flow(waiting, more, paused)
            for number, record in self._next_records():
                if number not in more:
                    continue
                if record is None or record.offset >= self.bounds[number].high:
                    more.discard(number)
                else:
                    waiting[number].append(record)
                    if record.offset == self.bounds[number].high - 1:
                        more.discard(number)
                if number not in more and not waiting[number]:
                    del waiting[number]

    def last(
        self, count: int, wanted: Callable[[RawRecord], bool] = lambda _: True
    ) -> list[RawRecord]:
        """The last `count` records that are wanted, oldest first. Looks further back until it has
        them."""
        found: dict[int, list[RawRecord]] = {number: [] for number in self.bounds}
        short = {number for number, bounds in self.bounds.items() if bounds.low < bounds.high}
        span = count
        while short:
            starts = {
                number: max(self.bounds[number].low, self.bounds[number].high - span)
                for number in short
            }
            latest = {number: deque[RawRecord](maxlen=count) for number in short}
            for record in self.read(starts):
                if wanted(record):
                    latest[record.partition].append(record)
            found |= {number: list(records) for number, records in latest.items()}
            short = {
                number
                for number, start in starts.items()
                if len(found[number]) < count and start > self.bounds[number].low
            }
            span *= 10
        merged = heapq.merge(*found.values(), key=lambda record: record.timestamp)
        return list(deque(merged, maxlen=count))

    def follow(self) -> Iterator[RawRecord]:
        """What comes after the end, as it comes; for ever, also while no broker can be reached."""
        self._assign(self.end)
        while True:
            for _, record in self._next_records(patience=None):
                if record is not None:
                    yield record

    def _assign(self, starts: Mapping[int, int]) -> None:
        targets = [TopicPartition(self._topic, number, at) for number, at in starts.items()]
        self._consumer.assign(targets)

    def _flow(
        self, waiting: Mapping[int, deque[RawRecord]], more: set[int], paused: set[int]
    ) -> None:
        """Let a partition that is far ahead of the others rest, so that memory stays bounded."""
        for number in more:
            target = [TopicPartition(self._topic, number)]
            if number not in paused and len(waiting[number]) > MOST_WAITING:
                self._consumer.pause(target)
                paused.add(number)
            elif number in paused and not waiting[number]:
                self._consumer.resume(target)
                paused.discard(number)

    def _next_records(
        self, patience: float | None = STALL_S
    ) -> Iterator[tuple[int, RawRecord | None]]:
        """Each record with its partition; None in its place says that the end was reached."""
        deadline = time.monotonic() + (patience or 0)
        raw: Any
        messages: list[Any] = []
        while not messages:
            try:
                messages = self._consumer.consume(500, 0.1)
            except KafkaException as error:
                raise KafkaError(f"{self._topic} cannot be read: {error.args[0].str()}") from None
            if patience is None:
                break
            if not messages and time.monotonic() > deadline:
                raise BrokerUnreachable(f"no broker gave more of {self._topic} for {patience:g} s")
        for raw in messages:
            trouble = raw.error()
            if trouble is None:
                self._reachability.answered()
                yield raw.partition(), _record(raw)
            elif trouble.code() == Code._PARTITION_EOF:
                yield raw.partition(), None
            elif trouble.code() in _GONE:
                raise TopicMissing(f"topic {self._topic} does not exist any more")
            elif trouble.fatal():
                raise KafkaError(f"{self._topic} cannot be read: {trouble.str()}")


def _record(raw: Any) -> RawRecord:
    _, timestamp = raw.timestamp()
    headers = raw.headers() or []
    return RawRecord(raw.partition(), raw.offset(), timestamp, raw.key(), raw.value(), headers)
