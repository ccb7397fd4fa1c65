"""Each group of listeners: what it reads, what makes its effects one, and how far it has come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shop.db.database import Database
from shop.db.positions import stored_positions, topics_read
from shop.db.store import DatabaseStore
from shop.db.work import Work
from shop.kafka.browse import RawRecord
from shop.kafka.dispatch import Dispatcher, Incoming, Record
from shop.kafka.errors import WireError
from shop.kafka.listener import ListenerRegistry, Source, every_record, takes
from shop.kafka.store import Partition
from shop.services import SERVICE_OF_GROUP


@dataclass(frozen=True)
class Group:
    """`positions` and `topic_ids` as they were when the audit began, none of a group that has never
    run; its service may have no `database` then."""

    name: str
    database: Database | None
    positions: Mapping[Partition, int]
    topic_ids: Mapping[str, str]
    sources: Sequence[Source]
    dispatcher: Dispatcher
    gives_receipts: bool

    def reads(self, topic: str) -> bool:
        return any(takes(source, topic) for source in self.sources)

    def decode(self, topic: str, record: RawRecord) -> Incoming | None:
        """As the group's container does it. Raises WireError."""
        partition = Partition(topic, record.partition)
        return self.dispatcher.decode(Record(partition, record.offset, AsPolled(topic, record)))

    def has_passed(self, topic: str, record: RawRecord) -> bool:
        return record.offset < self.positions.get(Partition(topic, record.partition), 0)

    def seen(self, receipts: Sequence[str]) -> set[str]:
        """Those of the receipts that the group has given."""
        if self.database is None or not receipts:
            return set()
        return DatabaseStore(self.database).seen(self.name, receipts)


class AsPolled:
    """A record with the methods of confluent_kafka.Message."""

    __slots__ = ("_record", "_topic")

    def __init__(self, topic: str, record: RawRecord) -> None:
        self._topic = topic
        self._record = record

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._record.partition

    def offset(self) -> int:
        return self._record.offset

    def timestamp(self) -> tuple[int, int]:
        return 1, self._record.timestamp

    def key(self) -> bytes | None:
        return self._record.key

    def value(self) -> bytes | None:
        return self._record.value

    def headers(self) -> Any:
        return self._record.headers


def groups_of(registry: ListenerRegistry, databases: Mapping[str, Database]) -> list[Group]:
    """Every group of the shop, by the databases of the services. Raises StoreUnavailable."""
    declared = registry.unbuilt()
    return [_group(name, databases, declared) for name in declared.groups]


def _group(name: str, databases: Mapping[str, Database], registry: ListenerRegistry) -> Group:
    database = databases.get(SERVICE_OF_GROUP[name])
    endpoints = registry.endpoints(name, Work)
    return Group(
        name,
        database,
        stored_positions(database, name) if database else {},
        topics_read(database, name) if database else {},
        registry.sources(name),
        Dispatcher(name, endpoints),
        all(endpoint.declaration.once is not every_record for endpoint in endpoints),
    )


def decoded(group: Group, topic: str, record: RawRecord) -> Incoming | WireError | None:
    """As `decode`, its error given back: such a record must be a dead letter."""
    try:
        return group.decode(topic, record)
    except WireError as error:
        return error
