"""The listener container: a group's consumers, one thread each, started and stopped together."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from shop.kafka.admin import require_topics, topic_ids
from shop.kafka.connection import Connection, Reachability, client_name
from shop.kafka.consumer import GroupConsumer
from shop.kafka.dead_letter import DeadLetters
from shop.kafka.dispatch import Dispatcher
from shop.kafka.errors import KafkaError
from shop.kafka.intake import Intake
from shop.kafka.listener import Endpoint
from shop.kafka.measuring import MeasuredDispatcher, MeasuredSettlement
from shop.kafka.metrics import ListenerMetrics, uncounted
from shop.kafka.progress import ANSWER_S, unread
from shop.kafka.recognition import Recognition
from shop.kafka.retry import Attempts, Availability, Retry
from shop.kafka.settlement import External, Plain, Repeatable, Settlement, Transactional
from shop.kafka.store import Partition, Store
from shop.kafka.topic import Topic, TopicPattern

log = logging.getLogger(__name__)

# Records of an external listener in hand at once: each may take as long as a time-out, and all of
# them must be done within max.poll.interval.ms, or another member does them too.
EXTERNAL_MOST = 10
ASK_EVERY_S = 20.0  # what brokers said of a group that may stall is believed for so long
TOPICS_GRACE_S = 2.0  # for brokers to hear of topics that were just made


class ListenerContainer:
    """Runs the listeners of one group.

    `store`: remembers positions and effects, each polled batch in one transaction; without one the
    handled prefix is committed to Kafka, which is at-least-once.
    `retry`: of the listeners that declare none. `dead_letters`: where a record goes that cannot be
    handled; without, the group stops in front of it.
    `instance`: a name that stays over restarts and is unique in the group's processes; a restarted
    process then has its partitions at once (Kafka's static membership, KIP-345).
    `metrics`: what is measured goes there; without, nothing is measured.
    `on_failure(group, error)` is called from the failing thread when a consumer must stop; the
    others of the group are stopped too. A group never stops silently.
    """

    def __init__(
        self,
        connection: Connection,
        group: str,
        endpoints: Sequence[Endpoint],
        *,
        store: Store | None = None,
        concurrency: int | None = None,
        max_poll_records: int = 500,
        auto_offset_reset: str = "earliest",
        retry: Retry | None = None,
        dead_letters: DeadLetters | None = None,
        instance: str | None = None,
        metrics: ListenerMetrics | None = None,
        session_timeout_ms: int = 10_000,
        max_poll_interval_ms: int = 300_000,
        on_failure: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        self.group = group
        self.failure: BaseException | None = None
        self._connection = connection
        self._store = store
        self._on_failure = on_failure
        self._reset = auto_offset_reset
        self._began_with: set[str] = set()
        self._ask_at = 0.0
        self._unread: dict[Partition, int] = {}
        self._others_reach = False
        sources = [source for e in endpoints for source in e.declaration.sources]
        self._required = [source.name for source in sources if isinstance(source, Topic)]
        letters = dead_letters or DeadLetters()
        self._dead_letters = letters
        self._patterns = [source for source in sources if isinstance(source, TopicPattern)]
        dispatcher = Dispatcher(group, endpoints)
        if metrics is not None:
            dispatcher = MeasuredDispatcher(group, endpoints, metrics)
            metrics.begin(group, self._required)
        settlement: Settlement
        if store is None:
            settlement = Plain(dispatcher, letters)
        elif endpoints[0].declaration.repeatable:
            settlement = Repeatable(dispatcher, store, letters)
        elif endpoints[0].declaration.external:
            settlement = External(dispatcher, store, letters)
            max_poll_records = min(max_poll_records, EXTERNAL_MOST)
        else:
            settlement = Transactional(dispatcher, store, letters)
        if isinstance(dispatcher, MeasuredDispatcher):
            settlement = MeasuredSettlement(settlement, dispatcher)
        count = concurrency or max(e.declaration.concurrency for e in endpoints)
        self._consumers: list[GroupConsumer] = []
        self._threads: list[threading.Thread] = []
        reachability = Reachability(f"group {group}")
        availability = Availability(group)
        retry = retry or Retry()

        def retry_of(topic: str) -> Retry:
            return dispatcher.endpoint_of(topic).declaration.retry or retry

        for number in range(count):
            config: dict[str, Any] = {
                "partition.assignment.strategy": "cooperative-sticky",
                "queued.min.messages": max(1000, 10 * max_poll_records),
                "queued.max.messages.kbytes": 16_384,
                "fetch.queue.backoff.ms": 5,
                "session.timeout.ms": session_timeout_ms,
                "heartbeat.interval.ms": min(1000, session_timeout_ms // 3),  # how soon it joins
                "max.poll.interval.ms": max(max_poll_interval_ms, session_timeout_ms),
            }
            if instance:
                config["group.instance.id"] = f"{instance}-{group}-{number}"
            if self._patterns:
                config["topic.metadata.refresh.interval.ms"] = 5_000  # patterns: new topics join
            stopping = threading.Event()
            intake = Intake(
                connection,
                group,
                [source.name for source in sources],
                store,
                name=client_name(f"{group}-{number}"),
                max_poll_records=max_poll_records,
                recognition=Recognition(
                    self._reset_of, self._recognise if self._patterns else None
                ),
                stopping=stopping,
                reachability=reachability,
                extra_config=config,
            )
            consumer = GroupConsumer(
                group,
                intake,
                settlement,
                retry_of,
                Attempts(retry.backoff),
                availability,
                stopping,
                letters.topic,
                metrics.count if metrics else uncounted,
            )
            self._consumers.append(consumer)

    def start(self, timeout: float = 8.0) -> None:
        """Start the threads. Raises BrokerUnreachable or TopicMissing within `timeout` seconds;
        with a store PositionLost when a topic was made anew, and StoreUnavailable."""
        letters = self._dead_letters
        required = self._required if letters.topic is None else [*self._required, letters.topic]
        existing = require_topics(self._connection, required, timeout, grace=TOPICS_GRACE_S)
        letters.measure(self._connection, timeout)
        matching = [n for n in existing if any(p.matches(n) for p in self._patterns)]
        self._began_with = {*self._required, *matching}
        self._recognise(self._began_with, timeout)
        if not self._began_with:  # librdkafka joins when there is a topic to read
            for consumer in self._consumers:
                consumer.assigned.set()
        for number, consumer in enumerate(self._consumers):
            thread = threading.Thread(
                target=self._run, args=(consumer,), name=f"{self.group}-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def ask_to_stop(self) -> None:
        """Begin to drain, without waiting: so that many containers drain at the same time."""
        for consumer in self._consumers:
            consumer.stop()

    def stop(self, timeout: float = 4.0) -> bool:
        """Drain: no new batch, the one in hand finishes, consumers leave. False: not in time."""
        self.ask_to_stop()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def wait_until_assigned(self, timeout: float) -> bool:
        """Whether this group's first consumer took part in a rebalance within `timeout` seconds."""
        return self._consumers[0].assigned.wait(timeout)

    @property
    def trouble(self) -> str | None:
        """Why the group is not ready; None when it is."""
        if self.failure is not None:
            return str(self.failure)
        # Consumers beyond the number of partitions stay idle, which is no trouble.
        troubles = [consumer.trouble for consumer in self._consumers]
        return None if None in troubles else troubles[0]

    @property
    def positions(self) -> dict[Partition, int]:
        """The next offset of each partition that is held here. One that the group has handled
        nothing of stands at 0, unless it begins elsewhere than at the beginning; then it is left
        out."""
        held = {p: at for consumer in self._consumers for p, at in consumer.positions.items()}
        reset = {p: 0 for p in held if self._reset_of(p.topic) == "earliest"}
        return reset | {p: at for p, at in held.items() if at is not None}

    def stalled(self, after: float) -> str | None:
        """Why a consumer of the group has made no progress for more than `after` seconds, although
        there are records for it; None when all have. Waiting for what is away is no stall: where it
        may be one, the brokers are asked, for some seconds and not again for ASK_EVERY_S."""
        alive = [c for t, c in zip(self._threads, self._consumers, strict=False) if t.is_alive()]
        for consumer in alive:
            if consumer.in_hand_for > after and consumer.unreached_for <= after:
                return f"the batch in hand takes {consumer.in_hand_for:.0f} s"
        standing = {p: at for consumer in alive for p, at in consumer.standing(after).items()}
        unreached = max((consumer.unreached_for for consumer in alive), default=0.0)
        if time.monotonic() > self._ask_at and (standing or unreached > after):
            self._ask_at = time.monotonic() + ASK_EVERY_S
            self._unread = {p: standing[p] for p in unread(self._connection, standing)}
            self._others_reach = unreached > after and self._brokers_answer()
        if unreached > after and self._others_reach:
            return f"no broker was reached for {unreached:.0f} s, though they answer others"
        for (topic, number), at in self._unread.items():
            if standing.get(Partition(topic, number)) == at:
                return f"{topic}[{number}] stands at {at}, and there are records"
        return None

    def _brokers_answer(self) -> bool:
        try:
            return bool(self._connection.metadata(ANSWER_S).brokers)
        except KafkaError:
            return False

    def _recognise(self, topics: Collection[str], timeout: float = 2.0) -> None:
        if self._store is not None:
            ids = topic_ids(self._connection, sorted(topics), timeout)
            self._store.recognise(self.group, ids)

    def _reset_of(self, topic: str) -> str:
        """One that joined later is read from its beginning: all of it came after the group did."""
        return self._reset if topic in self._began_with else "earliest"

    def _run(self, consumer: GroupConsumer) -> None:
        try:
            consumer.run()
        except BaseException as error:
            first, self.failure = self.failure is None, self.failure or error
            self.ask_to_stop()
            if first or str(error) != str(self.failure):
                why = str(error).removeprefix(f"group {self.group}: ")
                log.error("group %s stopped: %s", self.group, why)
            if self._on_failure is not None:
                self._on_failure(self.group, error)
