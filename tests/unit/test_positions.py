"""The bookkeeping of positions and acknowledgements, held against a model."""

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.errors import (
    KafkaError,
    ListenerDeclarationError,
    PermanentFailure,
    Unavailable,
)
from shop.kafka.positions import Positions, Reading
from shop.kafka.retry import SHORTEST_WAIT_S, Attempts, Availability, Backoff, Retry
from shop.kafka.store import Move, Partition

PARTITIONS = [Partition("T", number) for number in range(3)]


class OneConsumer(RuleBasedStateMachine):
    """A consumer that is assigned, reads, handles a prefix, loses partitions and reads again.

    The model: a log per partition and the set of offsets handled by anybody. Whatever happens,
    nothing is passed over and nothing that was handled is handled again."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = Positions()
        self.stored: dict[Partition, int] = {}
        self.handled: dict[Partition, list[int]] = {partition: [] for partition in PARTITIONS}
        self.reading: dict[Partition, int] = {}

    @rule(partition=st.sampled_from(PARTITIONS))
    def assign(self, partition: Partition) -> None:
        self.positions.assign({partition: self.stored.get(partition)})
        self.reading[partition] = self.stored.get(partition, 0)

    @precondition(lambda self: self.reading)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from(sorted(self.reading)))
        self.positions.revoke([partition])
        del self.reading[partition]

    @precondition(lambda self: self.reading)
    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        """A seek back, or records read a second time after a rebalance."""
        partition = data.draw(st.sampled_from(sorted(self.reading)))
        self.reading[partition] = data.draw(st.integers(0, self.reading[partition]))

    @precondition(lambda self: self.reading)
    @rule(data=st.data(), gaps=st.lists(st.integers(1, 3), min_size=1, max_size=8))
    def poll_and_handle_a_prefix(self, data: st.DataObject, gaps: list[int]) -> None:
        partition = data.draw(st.sampled_from(sorted(self.reading)))
        start = self.reading[partition]
        end = max([*self.handled[partition], start]) + len(gaps)
        polled = [
            offset for offset in range(start, end + 1) if self.positions.awaits(partition, offset)
        ]
        prefix = polled[: data.draw(st.integers(0, len(polled)))]
        moves = self.positions.moves((partition, offset) for offset in prefix)
        if data.draw(st.booleans(), label="commits"):
            for move in moves:
                assert self.stored.get(partition) == move.held
                self.stored[partition] = move.to
            self.positions.advance(moves)
            self.handled[partition] += prefix
            self.reading[partition] = end + 1 if prefix == polled else start

    @invariant()
    def each_offset_is_handled_once_and_without_gaps(self) -> None:
        for partition, offsets in self.handled.items():
            assert offsets == list(range(len(offsets)))
            assert self.stored.get(partition, 0) == len(offsets)

    @invariant()
    def a_held_position_is_the_stored_one(self) -> None:
        for partition, position in self.positions.held.items():
            assert position == self.stored.get(partition)


TestOneConsumer = OneConsumer.TestCase


def test_a_batch_moves_each_partition_to_after_its_last_record() -> None:
    positions = Positions()
    a, b = PARTITIONS[:2]
    positions.assign({a: None, b: 7})
    moves = positions.moves([(a, 0), (b, 7), (a, 1), (b, 9)])
    assert moves == [Move(a, None, 2), Move(b, 7, 10)]
    positions.advance(moves)
    assert dict(positions.held) == {a: 2, b: 10}


@pytest.mark.parametrize("records", [[5, 4], [2], [3, 2]])
def test_a_record_out_of_order_or_handled_before_is_no_move(records: list[int]) -> None:
    positions = Positions()
    positions.assign({PARTITIONS[0]: 3})
    with pytest.raises(ValueError, match="handled already"):
        positions.moves([(PARTITIONS[0], offset) for offset in records])


def test_a_partition_not_held_has_no_moves() -> None:
    with pytest.raises(ValueError, match="not held"):
        Positions().moves([(PARTITIONS[0], 0)])


@given(
    log=st.sets(st.integers(0, 40), min_size=1, max_size=30).map(sorted),
    start=st.integers(0, 20),
    chunks=st.lists(st.integers(1, 7), min_size=1),
    data=st.data(),
)
def test_reading_passes_over_no_record_whatever_gets_lost_on_the_way(
    log: list[int], start: int, chunks: list[int], data: st.DataObject
) -> None:
    """A log with gaps, read in chunks of which any record may be missing, once."""
    reading, partition = Reading(), PARTITIONS[0]
    reading.start(partition, start)
    position, taken, lost = start, [], set()
    sizes = iter(chunks * 200)
    while position <= log[-1]:
        chunk = [offset for offset in log if offset >= position][: next(sizes)]
        for offset in chunk:
            position = offset + 1
            if offset not in lost and data.draw(st.booleans(), label=f"{offset} gets lost"):
                lost.add(offset)
            elif reading.takes(partition, offset):
                taken.append(offset)
        position = reading.to_read_again().get(partition, position)
        if position > log[-1] and taken != [offset for offset in log if offset >= start]:
            position = (taken[-1] + 1) if taken else start  # a later record shows the gap
    assert taken == [offset for offset in log if offset >= start]


def test_what_was_read_before_or_is_not_held_is_not_taken() -> None:
    reading, (a, b) = Reading(), PARTITIONS[:2]
    assert not reading.takes(a, 0)
    reading.start(a, None)
    reading.start(b, 3)
    assert reading.takes(a, 7)
    assert not reading.takes(a, 7)
    assert not reading.takes(b, 2)
    assert reading.takes(b, 3)
    reading.stop(b)
    assert not reading.takes(b, 4)


def test_a_gap_is_read_again_once_and_then_believed() -> None:
    reading, partition = Reading(), PARTITIONS[0]
    reading.start(partition, 5)
    assert [reading.takes(partition, offset) for offset in (7, 8)] == [False, False]
    assert reading.to_read_again() == {partition: 5}
    reading.start(partition, 5)
    assert [reading.takes(partition, offset) for offset in (7, 8)] == [True, True]
    assert reading.to_read_again() == {}


def test_an_acknowledgment_takes_one_word() -> None:
    ack = Acknowledgment()
    assert not ack.acknowledged
    ack.acknowledge()
    assert ack.acknowledged
    with pytest.raises(KafkaError, match="answered once"):
        ack.nack(1)


@pytest.mark.parametrize("delay", [-1, float("nan"), 86_401])
def test_a_nack_has_a_sane_delay(delay: float) -> None:
    with pytest.raises(ValueError, match="0 to 86400 seconds"):
        Acknowledgment().nack(delay)


def test_failures_are_counted_per_record() -> None:
    attempts = Attempts(Backoff())
    partition = PARTITIONS[0]
    assert [attempts.failed(partition, 5) for _ in range(3)] == [1, 2, 3]
    assert attempts.failed(partition, 6) == 1
    assert attempts.failed(PARTITIONS[1], 5) == 1


def test_a_record_is_tried_as_often_as_said_unless_it_is_not_worth_it() -> None:
    retry = Retry(
        attempts=3, backoff=Backoff(first=1, factor=10, longest=60), not_worth=(KeyError,)
    )
    delays = [retry.delay_after(failures, ValueError()) for failures in (1, 2)]
    assert 0.8 <= (delays[0] or 0) <= 1.2
    assert 8 <= (delays[1] or 0) <= 12
    assert retry.delay_after(3, ValueError()) is None
    assert retry.delay_after(1, KeyError()) is None
    assert retry.delay_after(1, PermanentFailure("no")) is None


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 0}, {"backoff": Backoff(first=-1)}, {"backoff": Backoff(factor=0.5)},
     {"backoff": Backoff(first=5, longest=1)}],
)  # fmt: skip
def test_a_retry_that_cannot_be_is_refused_where_it_is_declared(wrong: dict[str, Any]) -> None:
    with pytest.raises(ListenerDeclarationError, match="attempt"):
        Retry(**wrong)


def test_what_is_away_is_asked_again_ever_later_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    availability = Availability("email")
    one, other = PARTITIONS[:2]
    delays = [availability.away(p, Unavailable("no mail server")) for p in (one, one, other)]
    assert delays == [SHORTEST_WAIT_S] * 3
    availability.back([one])
    assert availability.trouble == "no mail server", "the other one waits"
    availability.back([other])
    availability.back([one, other])
    assert availability.trouble is None
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@given(attempt=st.integers(1, 10_000))
def test_a_backoff_grows_to_its_longest_and_not_beyond(attempt: int) -> None:
    backoff = Backoff(first=0.1, factor=2, longest=10)
    assert 0.08 <= backoff.delay(attempt) <= 12
    assert backoff.delay(50) >= 8
