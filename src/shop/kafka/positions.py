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


class Reading:
    """Which offset is expected next of each partition, so that none is passed over on the way from
    the log to the listeners: by a rebalance, a seek, or a mistake.

    Offsets have gaps (compaction, transaction markers). A gap is believed only when reading it
    again shows the same one.
    """

    def __init__(self) -> None:
        self.expected: dict[Partition, int | None] = {}
        self._gaps: dict[Partition, tuple[int, int]] = {}
        self._again: dict[Partition, int] = {}

    def start(self, partition: Partition, offset: int | None) -> None:
        """Read from this offset on; None: wherever the broker begins."""
        self.expected[partition] = offset

    def stop(self, partition: Partition) -> None:
        self.expected.pop(partition, None)

    def takes(self, partition: Partition, offset: int) -> bool:
        """Whether the record is the next one, and so to be handled."""
        if partition not in self.expected or partition in self._again:
            return False
        expected = self.expected[partition]
        if expected is not None and offset != expected:
            if offset < expected:  # read before
                return False
            if self._gaps.get(partition) != (expected, offset):
                self._gaps[partition] = expected, offset
                self._again[partition] = expected
                return False
        if self._gaps:
            self._gaps.pop(partition, None)
        self.expected[partition] = offset + 1
        return True

    def doubt(self, partition: Partition) -> bool:
        """Read again from what is expected, whatever came meanwhile; False if that is not known."""
        expected = self.expected[partition]
        if expected is not None:
            self._again[partition] = expected
        return expected is not None

    def to_read_again(self) -> Mapping[Partition, int]:
        """What to read again, from where: a gap, or something else, gave doubt."""
        again, self._again = self._again, {}
        return again
