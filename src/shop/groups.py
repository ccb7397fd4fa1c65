"""Where groups stand: what Kafka knows of them, and for ours what their database says."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shop.databases import Databases
from shop.db.positions import stored_positions
from shop.kafka.connection import Connection
from shop.kafka.groups import (
    GroupMember,
    GroupState,
    committed_offsets,
    describe_groups,
    group_names,
)
from shop.kafka.offsets import Bounds, log_bounds
from shop.kafka.store import Partition


@dataclass(frozen=True)
class Standing:
    """A group in one partition. `stored` is what its database has, `bounds` are those of the log,
    `reader` the member that reads it now; None where there is none."""

    partition: Partition
    committed: int | None
    stored: int | None
    bounds: Bounds | None
    reader: GroupMember | None

    @property
    def position(self) -> int | None:
        """The next offset to read. The database is the truth where it has one."""
        return self.committed if self.stored is None else self.stored

    @property
    def lag(self) -> int | None:
        """How many offsets are still to be read; None without a position."""
        if self.position is None or self.bounds is None:
            return None
        return max(0, self.bounds.high - self.position)


@dataclass(frozen=True)
class Group:
    """`service` is whose database its positions are in, None of one that is not ours."""

    name: str
    service: str | None
    state: GroupState
    standings: Sequence[Standing]

    @property
    def known(self) -> bool:
        """Whether there is a trace of it anywhere."""
        return self.state.state != "dead" or bool(self.standings)

    @property
    def lag(self) -> int | None:
        """Over all partitions in which it has a position; None when there is no such."""
        lags = [standing.lag for standing in self.standings if standing.lag is not None]
        return sum(lags) if lags else None


class Groups:
    """Looks, and changes nothing. `service_of` names the service of each group that is ours."""

    def __init__(
        self,
        connection: Connection,
        databases: Databases,
        service_of: Mapping[str, str],
        timeout: float = 8.0,
    ) -> None:
        self._connection = connection
        self._databases = databases
        self._service_of = service_of
        self._timeout = timeout

    def all(self) -> list[Group]:
        """Those that the brokers know, and ours that have a position. Raises KafkaError."""
        names = group_names(self._connection, self._timeout)
        ours = [name for name in self._service_of if self._stored(name)]
        return self.describe(sorted({*names, *ours}))

    def describe(self, names: Collection[str]) -> list[Group]:
        """In the order of the names, also those that do not exist. Raises KafkaError."""
        states = describe_groups(self._connection, names, self._timeout)
        committed = committed_offsets(self._connection, names, self._timeout)
        stored = {name: self._stored(name) for name in names}
        readers = {state.name: _readers(state) for state in states}
        places = {name: {*committed[name], *stored[name], *readers[name]} for name in names}
        bounds = self._bounds(set().union(*places.values()))
        return [
            Group(
                state.name,
                self._service_of.get(state.name),
                state,
                [
                    Standing(
                        place,
                        committed[state.name].get(place),
                        stored[state.name].get(place),
                        bounds.get(place),
                        readers[state.name].get(place),
                    )
                    for place in sorted(places[state.name])
                ],
            )
            for state in states
        ]

    def _stored(self, name: str) -> dict[Partition, int]:
        service = self._service_of.get(name)
        database = self._databases.existing(service) if service else None
        return stored_positions(database, name) if database else {}

    def _bounds(self, partitions: Iterable[Partition]) -> dict[Partition, Bounds]:
        """Of those that exist and have a leader."""
        topics = self._connection.metadata(self._timeout).topics
        there = {
            Partition(name, number)
            for name, topic in topics.items()
            for number, partition in topic.partitions.items()
            if partition.leader >= 0
        }
        return log_bounds(self._connection, there.intersection(partitions), self._timeout)


def _readers(state: GroupState) -> dict[Partition, GroupMember]:
    return {partition: member for member in state.members for partition in member.partitions}
