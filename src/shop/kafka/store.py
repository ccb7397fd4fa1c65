"""What the container needs of a database, without knowing one.

A store remembers, per group and partition, the next offset to read, and which receipts it has
given, and which keys it holds back. These, and what the listeners did and sent, become true
together or not at all.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from shop.kafka.outbound import OutboundRecord
from shop.kafka.wire import Message


class Partition(NamedTuple):
    topic: str
    number: int


class Move(NamedTuple):
    """A position's step. `held` is where this consumer believes it stands, None if nowhere yet."""

    partition: Partition
    held: int | None
    to: int


class HeldKey(NamedTuple):
    """`name` stands for the key's bytes."""

    topic: str
    name: str


class BatchTransaction(Protocol):
    """One transaction of the store. It commits when its context ends without an exception."""

    def claim(self, receipts: Sequence[str]) -> set[str]:
        """Those of `receipts` that were not there before; from now on they are."""

    def work(self, message: Message[Any], cause: str, title: str) -> Any:
        """The unit of work handed to a listener for one record. What it sends gets event ids
        derived from `cause`, and correlation ids continued with `title`."""

    def accept(self, notes: Any) -> None:
        """Let what a unit of work of Store.notes was told become true with this transaction."""

    def publish(self, record: OutboundRecord) -> None:
        """Send a record as it is, once this transaction is true."""

    def held(self, keys: Collection[HeldKey]) -> dict[HeldKey, list[str]]:
        """The letters that hold each of those keys back, the first to come first."""

    def hold(self, key: HeldKey, letter: str) -> None:
        """Hold the key back until this letter is released; one that does already keeps its turn."""

    def release(self, key: HeldKey, letter: str) -> None: ...


class Store(Protocol):
    """Thread-safe. Every method may raise StoreUnavailable: then the same is tried again."""

    @property
    def work_type(self) -> type:
        """What a listener annotates a parameter with to get the unit of work."""

    def positions(self, group: str, partitions: Iterable[Partition]) -> Mapping[Partition, int]:
        """The next offsets of those partitions that the group has a position for."""

    def recognise(self, group: str, topic_ids: Mapping[str, str]) -> None:
        """Note which topics the group's positions are of, by Kafka's topic ids. Raises
        PositionLost when one has another id now: a topic made anew holds other records at the
        same offsets."""

    def transaction(
        self, group: str, moves: Sequence[Move]
    ) -> AbstractContextManager[BatchTransaction]:
        """Begin, and move the positions by compare-and-set before anything else.

        Raises Fenced when a position is not where its move says: another consumer has it."""

    def seen(self, group: str, receipts: Sequence[str]) -> set[str]:
        """Those of `receipts` that were given, outside of any transaction."""

    def notes(self, group: str, message: Message[Any], cause: str, title: str) -> Any:
        """A unit of work outside of any transaction, for a BatchTransaction to accept."""
