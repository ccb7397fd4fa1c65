"""Where one consumer stands: pure bookkeeping, used by the one thread that polls."""

from collections.abc import Iterable, Mapping

from shop.kafka.store import Move, Partition


class Positions:
    """The next offset of each partition held, None where the group has handled nothing yet.

    Only the contiguous prefix of a partition counts as handled, so a position moves over a record
    only when all before it are handled. Offsets may have gaps (compaction, transaction markers).
    """

    def __init__(self) -> None:
        self._next: dict[Partition, int | None] = {}

    def assign(self, starts: Mapping[Partition, int | None]) -> None:
        self._next.update(starts)

    def revoke(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._next.pop(partition, None)

    def __contains__(self, partition: Partition) -> bool:
        return partition in self._next

    def __getitem__(self, partition: Partition) -> int | None:
        return self._next[partition]

    @property
    def held(self) -> Mapping[Partition, int | None]:
        return self._next

    def awaits(self, partition: Partition, offset: int) -> bool:
        """Whether a record is one to handle: its partition is held and it was not handled."""
        if partition not in self._next:
            return False
        position = self._next[partition]
        return position is None or offset >= position

    def moves(self, handled: Iterable[tuple[Partition, int]]) -> list[Move]:
        """The steps over `handled` records (partition and offset, in the order of the log)."""
        last: dict[Partition, int] = {}
        for partition, offset in handled:
            if offset < last.get(partition, -1) or not self.awaits(partition, offset):
                raise ValueError(f"{partition} at {offset} is handled already or not held")
            last[partition] = offset
        return [Move(p, self._next[p], offset + 1) for p, offset in sorted(last.items())]

    def advance(self, moves: Iterable[Move]) -> None:
        """The moves are true now (committed)."""
        for partition, held, to in moves:
            if partition in self._next and self._next[partition] == held:
                self._next[partition] = to
