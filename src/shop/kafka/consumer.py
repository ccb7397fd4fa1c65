"""One consumer of a group and the thread's loop around it: poll, settle, and what goes wrong."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_STORED,
    KafkaException,
    TopicPartition,
)
from confluent_kafka import KafkaError as Code

from shop.kafka.connection import Connection, Consumer, Reachability, silent
from shop.kafka.errors import (
    Fenced,
    KafkaError,
    ListenerFailed,
    PositionLost,
    StoreUnavailable,
    TopicMissing,
    WireError,
)
from shop.kafka.positions import Positions
from shop.kafka.retry import Attempts, Backoff, Waiting
from shop.kafka.settlement import NotAcknowledged, Record, Settlement, current_message
from shop.kafka.store import Partition, Store

log = logging.getLogger(__name__)

POLL_S = 0.25  # how long an idle poll waits, and so how soon a stop is noticed
MISSING_TOPIC_GRACE_S = 30.0  # a broker that has just started may not know all topics yet
COMMIT_EVERY_S = 1.0  # positions in a store: Kafka's copy is for lag tools only


class GroupConsumer:
    """Runs in one thread (`run`); `stop` and `trouble` may be used from any."""

    def __init__(
        self,
        connection: Connection,
        group: str,
        topics: Sequence[str],
        settlement: Settlement,
        *,
        store: Store | None,
        name: str,
        backoff: Backoff,
        attempts: int,
        max_poll_records: int,
        auto_offset_reset: str,
        extra_config: dict[str, Any],
    ) -> None:
        self._group = group
        self._topics = list(topics)
        self._settlement = settlement
        self._store = store
        self._name = name
        self._max_poll_records = max_poll_records
        self._reset = auto_offset_reset
        self._reachability = Reachability(f"group {group}")
        self._positions = Positions()
        self._revoked: set[Partition] = set()
        self._attempts = Attempts(attempts, backoff)
        self._waiting = Waiting()
        self._stopping = threading.Event()
        self._missing_since: float | None = None
        self._committed: dict[Partition, int] = {}
        self._commit_due = 0.0
        self._store_trouble: str | None = None
        self.assigned = threading.Event()
        self._consumer = Consumer(
            connection.address(),
            group,
            # Always: this class resets by hand, so that a lost position is never skipped over.
            "error",
            auto_commit_enable=False,
            logger=silent,
            error_callback=self._reachability.failed,
            extra_config=connection.client_config(name)
            | {
                "partition.assignment.strategy": "cooperative-sticky",
                "queued.min.messages": max(1000, 10 * max_poll_records),
                "queued.max.messages.kbytes": 16_384,
                "fetch.queue.backoff.ms": 5,
                "on_commit": None,
            }
            | extra_config,
        )

    @property
    def trouble(self) -> str | None:
        """Why this consumer is not ready to handle records; None when it is."""
        if self._reachability.down:
            return "no broker can be reached"
        if self._store_trouble:
            return self._store_trouble
        return None if self.assigned.is_set() else "no partitions assigned yet"

    def stop(self) -> None:
        """Finish the batch in hand, commit, leave the group; `run` returns then."""
        self._stopping.set()

    def run(self) -> None:
        """Poll until stopped. Raises what must stop the group, with nothing skipped."""
        self._consumer.subscribe(
            self._topics,
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        try:
            while not self._stopping.is_set():
                self._resume_due()
                records = self._poll()
                if records:
                    self._handle(records)
                    current_message.set(None)
                self._commit()
        finally:
            try:
                self._commit(final=True)
            finally:
                self._consumer.close()  # type: ignore[no-untyped-call]

    # --- polling -------------------------------------------------------------------------------

    def _poll(self) -> list[Record]:
        """What is there at once, at most max_poll_records; waits only for the first."""
        self._revoked.clear()
        first = self._take(1, min(POLL_S, self._waiting.until_due()))
        if not first or self._max_poll_records == 1:
            return first
        rest = self._take(self._max_poll_records - 1, 0)
        # A partition may have gone during the second call, even gone and come back elsewhere.
        return [r for r in first if r.partition not in self._revoked] + rest

    def _take(self, count: int, timeout: float) -> list[Record]:
        records = []
        awaits = self._positions.awaits
        raw: Any
        for raw in self._consumer.consume(count, timeout):
            error = raw.error()
            if error is not None:
                self._on_error(raw, error)
                continue
            partition = Partition(raw.topic(), raw.partition())
            offset = raw.offset()
            if awaits(partition, offset):
                records.append(Record(partition, offset, raw))
        if records:
            self._reachability.answered()
            self._missing_since = None
        return records

    def _on_error(self, raw: Any, error: Code) -> None:
        code = error.code()
        if code == Code._AUTO_OFFSET_RESET:
            self._start_without_position(Partition(raw.topic(), raw.partition()))
        elif code in (Code.UNKNOWN_TOPIC_OR_PART, Code._UNKNOWN_TOPIC, Code._UNKNOWN_PARTITION):
            now = time.monotonic()
            self._missing_since = self._missing_since or now
            if now - self._missing_since > MISSING_TOPIC_GRACE_S:
                raise TopicMissing(f"group {self._group}: {error.str()}")
        elif code == Code._MAX_POLL_EXCEEDED:
            log.warning(
                "group %s: a batch took longer than max.poll.interval.ms; joining again",
                self._group,
            )
        elif error.fatal() or code in (
            Code.TOPIC_AUTHORIZATION_FAILED,
            Code.GROUP_AUTHORIZATION_FAILED,
            Code._FATAL,
        ):
            raise KafkaError(f"group {self._group}: {error.str()}")
        else:
            log.debug("group %s: %s", self._group, error.str())

    def _start_without_position(self, partition: Partition) -> None:
        """The broker has no such offset: a group that begins, or one whose records are gone."""
        target = TopicPartition(*partition)
        low, high = self._consumer.get_watermark_offsets(target, timeout=10)
        position = self._positions.held.get(partition)
        if position is None:
            committed = self._consumer.committed([target], timeout=10)[0].offset
            position = committed if committed >= 0 else None
        if position is not None:
            raise PositionLost(
                f"group {self._group} would go on at {position} in {partition.topic}"
                f"[{partition.number}], but the log holds {low} to {high}: "
                + (
                    f"{low - position} records were deleted by retention"
                    if position < low
                    else "the topic was made anew, or the broker lost its data"
                )
                + "; nothing was skipped. Choose where it goes on by setting its position"
            )
        if self._reset == "none":
            raise PositionLost(
                f"group {self._group} has no position in {partition.topic}[{partition.number}] and "
                "auto-offset-reset is none; choose earliest or latest"
            )
        target.offset = OFFSET_BEGINNING if self._reset == "earliest" else OFFSET_END
        # A partition in this state cannot seek; it is given to the client anew.
        self._consumer.incremental_unassign([target])
        self._consumer.incremental_assign([target])

    # --- handling ------------------------------------------------------------------------------

    def _handle(self, records: Sequence[Record]) -> None:
        """Settle the batch in one go; when that fails, record by record."""
        if len(records) > 1:
            try:
                return self._settle(records)
            except (Fenced, StoreUnavailable) as error:
                return self._set_all_back(records, error)
            except Exception as error:
                log.debug("group %s: batch rolled back, one by one now: %r", self._group, error)
        behind: set[Partition] = set()
        for record in records:
            if record.partition in behind or not self._positions.awaits(
                record.partition, record.offset
            ):
                continue
            try:
                self._settle([record])
            except (Fenced, StoreUnavailable) as error:
                return self._set_all_back(records, error)
            except NotAcknowledged as error:
                behind.add(record.partition)
                self._set_back(record, self._attempts.redelivery(error.delay))
            except Exception as error:
                behind.add(record.partition)
                self._set_back(record, self._retry_after(record, error))
            else:
                self._attempts.succeeded(record.partition)
        return None

    def _settle(self, records: Sequence[Record]) -> None:
        self._settlement.settle(records, self._positions)
        if self._store_trouble:
            log.info("group %s: the database is back", self._group)
            self._store_trouble = None
            self._attempts.store_is_back()

    def _retry_after(self, record: Record, error: Exception) -> float:
        """Seconds until the next attempt; raises ListenerFailed after the last one."""
        where = f"{record.partition.topic}[{record.partition.number}] at {record.offset}"
        delay = None
        if not isinstance(error, WireError):
            delay = self._attempts.failed(record.partition, record.offset)
        if delay is None:
            raise ListenerFailed(
                f"group {self._group} cannot handle {where}: {type(error).__name__}: {error}"
            ) from error
        log.warning(
            "group %s: %s failed, again in %.1f s: %s: %s",
            self._group, where, delay, type(error).__name__, error,
        )  # fmt: skip
        return delay

    def _set_back(self, record: Record, delay: float) -> None:
        """Read on from `record` after `delay` s; its partition waits, the others go on."""
        target = TopicPartition(*record.partition, record.offset)
        self._pause([record.partition], delay)
        self._consumer.seek(target)

    def _set_all_back(self, records: Sequence[Record], error: Fenced | StoreUnavailable) -> None:
        """Forget the batch in hand; read it again, or what the store says is next."""
        starts: dict[Partition, int | None] = {}
        for record in records:
            if self._positions.awaits(record.partition, record.offset):
                starts.setdefault(record.partition, record.offset)
        if isinstance(error, Fenced):
            log.warning("group %s: %s; reading from the stored position", self._group, error)
            try:
                stored = self._stored(starts)
                self._positions.assign(stored)
                starts |= stored
            except StoreUnavailable as unavailable:
                error = unavailable
        if isinstance(error, StoreUnavailable):
            if not self._store_trouble:
                log.warning("group %s: %s; waiting for it", self._group, error)
            self._store_trouble = str(error)
            self._pause(self._positions.held, self._attempts.store_failed())
        for partition, start in starts.items():
            if start is not None:
                self._consumer.seek(TopicPartition(*partition, start))

    def _pause(self, partitions: Iterable[Partition], delay: float) -> None:
        for partition in partitions:
            self._consumer.pause([TopicPartition(*partition)])
            self._waiting.add(partition, delay)

    def _resume_due(self) -> None:
        for partition in self._waiting.take_due():
            if partition in self._positions:
                self._consumer.resume([TopicPartition(*partition)])

    # --- assignment ----------------------------------------------------------------------------

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        # Runs inside consume(). No call to Kafka here: it would time out during a failover.
        mine = [Partition(p.topic, p.partition) for p in partitions]
        starts = self._patiently(lambda: self._stored(mine))
        self._positions.assign(starts)
        for target, partition in zip(partitions, mine, strict=True):
            target.offset = self._start(starts[partition])
        consumer.incremental_assign(partitions)
        consumer.resume(partitions)
        self.assigned.set()

    def _on_revoke(self, _: Any, partitions: list[TopicPartition]) -> None:
        self._commit(final=True)
        self._on_lost(_, partitions)

    def _on_lost(self, _: Any, partitions: list[TopicPartition]) -> None:
        gone = [Partition(p.topic, p.partition) for p in partitions]
        self._positions.revoke(gone)
        self._waiting.forget(gone)
        self._revoked.update(gone)
        for partition in gone:
            self._committed.pop(partition, None)

    def _stored(self, partitions: Iterable[Partition]) -> dict[Partition, int | None]:
        partitions = list(partitions)
        found = self._store.positions(self._group, partitions) if self._store else {}
        return {partition: found.get(partition) for partition in partitions}

    def _start(self, position: int | None) -> int:
        # OFFSET_STORED: what the group committed to Kafka, else _start_without_position.
        return OFFSET_STORED if position is None else position

    def _patiently(self, read: Callable[[], Any]) -> Any:
        while True:
            try:
                return read()
            except StoreUnavailable as error:
                self._store_trouble = str(error)
                if self._stopping.wait(self._attempts.store_failed()):
                    raise

    # --- committing to Kafka -------------------------------------------------------------------

    def _commit(self, final: bool = False) -> None:
        """Tell Kafka the positions. With a store that is for lag tools, so it may fail or lag;
        without one it is what the group goes by, after each batch and before a partition goes."""
        moved = {
            partition: position
            for partition, position in self._positions.held.items()
            if position is not None and self._committed.get(partition) != position
        }
        if not moved:
            return
        now = time.monotonic()
        if self._store is not None and not final and now < self._commit_due:
            return
        self._commit_due = now + COMMIT_EVERY_S
        offsets = [TopicPartition(*partition, offset) for partition, offset in moved.items()]
        wait = final and self._store is None
        try:
            self._consumer.commit(offsets=offsets, asynchronous=not wait)
        except KafkaException as error:
            log.log(
                logging.WARNING if wait else logging.DEBUG,
                "group %s: offsets not committed: %s", self._group, error.args[0].str(),
            )  # fmt: skip
            return
        self._committed.update(moved)
