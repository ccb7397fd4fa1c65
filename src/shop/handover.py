"""Handing a group's work over to another group, so that each record is handled once.

The taker's position becomes the giver's: in Kafka, whose broker refuses while the taker has
members, and, if the taker is ours, in its database. Doing it again does the same.

Kafka and the database have no transaction in common, so the commit to Kafka is made within the one
that sets the position in the database. Kafka first and the database after it would let a taker that
starts in between commit batches from its old position; the other way round, a commit that Kafka
refuses would leave a position set that nobody was told of. As it is, a refusal changes nothing, and
a taker that starts in between cannot commit before the position is set, and then is fenced. What is
left is that this process or the database fails right after Kafka's answer: then Kafka alone has the
new position, and handing over again sets both.

Nothing keeps the giver from starting meanwhile, so it is looked at again at the end.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from shop.databases import Databases
from shop.db.database import Database
from shop.db.positions import set_positions, topics_read, unpublished
from shop.groups import Group, Groups
from shop.kafka.admin import require_topics, topic_ids
from shop.kafka.connection import Connection
from shop.kafka.groups import GroupHasMembers, GroupState, commit_for, describe_groups
from shop.kafka.listener import ListenerRegistry, takes
from shop.kafka.offsets import Bounds, log_bounds
from shop.kafka.store import Partition
from shop.kafka.topic import TopicPattern

# For processes that are ending, and relays that run for another group, to do what is left.
PATIENCE_S = 5.0
_LOOK_S = 0.05


class HandOverRefused(Exception):
    """It would lose or double records; the message says what to do."""


@dataclass(frozen=True)
class Step:
    """One partition of the taker: where it stood, where it goes on, and why if not there where the
    giver stands."""

    partition: Partition
    before: int | None
    now: int
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What is to be done, made of where the giver stood. `taker_seen`: whether there is a trace of
    the taker anywhere, or it is ours."""

    giver_at: Mapping[Partition, int]
    steps: Sequence[Step]
    taker_seen: bool


class HandOver:
    """From `giver` to `taker`, either of them ours or somebody else's.

    `unfinished` tells, for a group, how much its database says it has taken on and not done yet,
    besides what waits in the outbox."""

    def __init__(
        self,
        connection: Connection,
        databases: Databases,
        registry: ListenerRegistry,
        service_of: Mapping[str, str],
        unfinished: Mapping[str, Callable[[Database], int]],
        giver: str,
        taker: str,
        timeout: float = 8.0,
    ) -> None:
        self._connection = connection
        self._databases = databases
        self._registry = registry
        self._service_of = service_of
        self._unfinished = unfinished
        self._groups = Groups(connection, databases, service_of, timeout)
        self._giver = giver
        self._taker = taker
        self._timeout = timeout

    def plan(self) -> Plan:
        """Changes nothing. Raises HandOverRefused, TopicMissing, KafkaError and
        StoreUnavailable."""
        if self._giver == self._taker:
            raise HandOverRefused("a group does not hand over to itself")
        names = [self._giver, self._taker]
        _require_empty(describe_groups(self._connection, names, self._timeout))
        self._require_finished()
        self._require_published()
        giver, taker = self._groups.describe(names)  # after the wait: they may have moved meanwhile
        _require_empty([giver.state, taker.state])
        positions = _positions(giver)
        if not positions:
            raise HandOverRefused(
                f"group {giver.name} has no position in any topic, so there is nothing to hand "
                "over; `shop groups list` shows who has"
            )
        topics = self._topics_of_giver({partition.topic for partition in positions})
        self._require_listening(topics)
        self._require_same_topics(topics)
        before = {s.partition: s.position for s in taker.standings}
        bounds = self._bounds(topics)
        steps = [
            self._step(
                partition, before.get(partition), positions.get(partition), bounds[partition]
            )
            for partition in sorted(bounds)
        ]
        return Plan(positions, steps, taker.known or taker.service is not None)

    def carry_out(self, plan: Plan) -> None:
        """Set the taker's positions. Raises HandOverRefused when somebody has joined it or the
        giver has moved on, KafkaError and StoreUnavailable: do it again then."""
        positions = {step.partition: step.now for step in plan.steps}
        try:
            with self._set_in_database(positions):
                commit_for(self._connection, self._taker, positions, self._timeout)
        except GroupHasMembers:
            raise HandOverRefused(
                f"somebody has just joined group {self._taker}, and nothing was changed: stop it, "
                "and do it again"
            ) from None
        (giver,) = self._groups.describe([self._giver])
        if giver.state.members or _positions(giver) != plan.giver_at:
            raise HandOverRefused(
                f"group {self._giver} was started during the hand-over: stop it, and do it again "
                f"before {self._taker} starts"
            )

    def _set_in_database(self, positions: Mapping[Partition, int]) -> AbstractContextManager[None]:
        service = self._service_of.get(self._taker)
        if service is None:
            return nullcontext()
        topics = sorted({partition.topic for partition in positions})
        ids = topic_ids(self._connection, topics, self._timeout)
        return set_positions(self._databases.of(service), self._taker, positions, ids)

    def _topics_of_giver(self, with_position: set[str]) -> list[str]:
        """Those it has a position in and, if it is ours, all others that it listens to."""
        sources = self._registry.sources(self._giver)
        named = {source.name for source in sources if not isinstance(source, TopicPattern)}
        existing = require_topics(self._connection, with_position | named, self._timeout)
        patterns = [source for source in sources if isinstance(source, TopicPattern)]
        matching = {name for name in existing if any(p.matches(name) for p in patterns)}
        return sorted(with_position | named | matching)

    def _require_listening(self, topics: Collection[str]) -> None:
        if self._taker not in self._service_of:
            return
        sources = self._registry.sources(self._taker)
        deaf = [name for name in topics if not any(takes(source, name) for source in sources)]
        if deaf:
            raise HandOverRefused(
                f"group {self._taker} does not listen to {', '.join(deaf)}, which "
                f"{self._giver} reads: their records would not be handled"
            )

    def _require_same_topics(self, topics: list[str]) -> None:
        """Our positions are offsets of a topic with a certain id."""
        service = self._service_of.get(self._giver)
        database = self._databases.existing(service) if service else None
        known = topics_read(database, self._giver) if database else {}
        now = topic_ids(self._connection, topics, self._timeout)
        anew = [name for name in topics if known.get(name, now[name]) != now[name]]
        if anew:
            raise HandOverRefused(
                f"the positions of group {self._giver} are of a topic {', '.join(anew)} that is "
                "gone; the one made anew holds other records at the same offsets"
            )

    def _require_finished(self) -> None:
        service = self._service_of.get(self._giver)
        database = self._databases.existing(service) if service else None
        count = self._unfinished.get(self._giver)
        if database is None or count is None:
            return
        deadline = time.monotonic() + PATIENCE_S
        while left := count(database):
            if time.monotonic() > deadline:
                raise HandOverRefused(
                    f"group {self._giver} has begun work and not finished it ({left}), and "
                    f"{self._taker} would not go on with it: run `shop listen --group "
                    f"{self._giver}` until it is done, then stop it"
                )
            time.sleep(_LOOK_S)

    def _require_published(self) -> None:
        service = self._service_of.get(self._giver)
        database = self._databases.existing(service) if service else None
        left = unpublished(database, PATIENCE_S) if database else 0
        if left:
            raise HandOverRefused(
                f"{left} records that the service {service} has sent are not published yet: run "
                f"`shop listen --group {self._giver}` until it has caught up, then stop it"
            )

    def _bounds(self, topics: Collection[str]) -> dict[Partition, Bounds]:
        metadata = self._connection.metadata(self._timeout).topics
        partitions = [
            Partition(name, number) for name in topics for number in metadata[name].partitions
        ]
        return log_bounds(self._connection, partitions, self._timeout)

    def _step(
        self, partition: Partition, before: int | None, position: int | None, log: Bounds
    ) -> Step:
        if position is None:
            note = f"{self._giver} has no position here: from the beginning of the log"
            return Step(partition, before, log.low, note)
        if position < log.low:
            note = f"{log.low - position} records were deleted by retention: from what is left"
            return Step(partition, before, log.low, note)
        if position > log.high:
            raise HandOverRefused(
                f"group {self._giver} stands at {position} in {partition.topic}"
                f"[{partition.number}], whose end is {log.high}: the topic was made anew, or the "
                "broker lost its data"
            )
        return Step(partition, before, position)


def _positions(group: Group) -> dict[Partition, int]:
    return {s.partition: s.position for s in group.standings if s.position is not None}


def _require_empty(groups: Collection[GroupState]) -> None:
    for group in groups:
        if not group.members:
            continue
        who = ", ".join(sorted({f"{m.client_id} at {m.host}" for m in group.members}))
        stays = (
            "; one that was stopped but has a name of its own stays for its session timeout, 10 s "
            "by default"
            if any(member.instance for member in group.members)
            else ""
        )
        raise HandOverRefused(f"group {group.name} has members ({who}): stop them first{stays}")
