"""Handling records so that they count, in ways that differ in what remembers it and when.

`Transactional`: the listeners' effects, receipts and positions become true together.
`External`: the effect is outside; each record is settled right after it, by itself.
`Repeatable`: the effect is outside and may be repeated; a batch is settled as one, after it.
`Plain`: no store; Kafka remembers the contiguous prefix, at least once.
"""

import threading
from collections.abc import Sequence
from typing import Any, Protocol

from shop.kafka.dead_letter import DeadLetters, Failure
from shop.kafka.dispatch import Dispatcher, Incoming, Record, Stopping
from shop.kafka.holding import Holding
from shop.kafka.positions import Positions
from shop.kafka.store import BatchTransaction, Partition, Store


class Settlement(Protocol):
    atomic: bool  # whether a batch that fails leaves nothing handled

    def settle(
        self, records: Sequence[Record], positions: Positions, stopping: threading.Event
    ) -> None:
        """Handle the records, and move `positions` over exactly those that are handled: all of
        them, unless `stopping` is set, which is looked at before each call of a listener.

        Raises RecordFailed for the first that its listener or codec cannot handle; what the store
        raises, Fenced and StoreUnavailable among it; and Stopping."""

    def bury(self, record: Record, failure: Failure, positions: Positions) -> None:
        """Make a dead letter of a record and move on past it. Raises what `settle` may of the
        store, DeadLetterTooLarge, and SendFailed where there is none."""


class Transactional:
    atomic = True

    def __init__(self, dispatcher: Dispatcher, store: Store, dead_letters: DeadLetters) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._dead_letters = dead_letters

    def settle(
        self, records: Sequence[Record], positions: Positions, stopping: threading.Event
    ) -> None:
        moves = positions.moves((r.partition, r.offset) for r in records)
        incoming = self._dispatcher.decode_all(records)
        with self._store.transaction(self._dispatcher.group, moves) as transaction:
            if self._dispatcher.holds_back:
                incoming = self._holding(transaction).let_pass(records, incoming)
            fresh = _claimed(transaction, incoming)
            for index, item in enumerate(incoming):
                if item is None:
                    continue
                if stopping.is_set():
                    raise Stopping
                if item.receipt is None or item.receipt in fresh:
                    fresh.discard(item.receipt)  # a second one in the same batch is a repeat
                    work = None
                    if item.endpoint.wants_work:
                        work = transaction.work(item.message, item.identity, item.endpoint.title)
                    self._dispatcher.call(index, item, work)
                else:
                    self._dispatcher.repeated(item)
        positions.advance(moves)

    def bury(self, record: Record, failure: Failure, positions: Positions) -> None:
        moves = positions.moves([(record.partition, record.offset)])
        with self._store.transaction(failure.group, moves) as transaction:
            transaction.publish(self._dead_letters.letter(record.raw, failure))
            if self._dispatcher.holds_back:
                self._holding(transaction).failed(record)
        positions.advance(moves)

    def _holding(self, transaction: BatchTransaction) -> Holding:
        return Holding(self._dispatcher, self._store, transaction, self._dead_letters)


class _Outside:
    """What External and Repeatable have in common."""

    def __init__(self, dispatcher: Dispatcher, store: Store, dead_letters: DeadLetters) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._dead_letters = dead_letters

    def bury(self, record: Record, failure: Failure, positions: Positions) -> None:
        moves = positions.moves([(record.partition, record.offset)])
        with self._store.transaction(failure.group, moves) as transaction:
            transaction.publish(self._dead_letters.letter(record.raw, failure))
        positions.advance(moves)


class External(_Outside):
    atomic = False

    def __init__(self, dispatcher: Dispatcher, store: Store, dead_letters: DeadLetters) -> None:
        super().__init__(dispatcher, store, dead_letters)
        # What was done and is not settled yet: not done again for as long as the store is away.
        self._done: dict[Partition, str] = {}

    def settle(
        self, records: Sequence[Record], positions: Positions, stopping: threading.Event
    ) -> None:
        group = self._dispatcher.group
        for index, record in enumerate(records):
            if stopping.is_set():
                return
            moves = positions.moves([(record.partition, record.offset)])
            incoming = [self._dispatcher.decode_at(index, record)]
            for item in incoming:
                if item is None or self._done.get(record.partition) == item.identity:
                    continue
                if _seen(self._store, group, incoming):
                    self._dispatcher.repeated(item)
                else:
                    self._dispatcher.call(index, item, None)
                    self._done[record.partition] = item.identity
            with self._store.transaction(group, moves) as transaction:
                _claimed(transaction, incoming)
            positions.advance(moves)
            self._done.pop(record.partition, None)


class Repeatable(_Outside):
    atomic = True  # what was done of a batch that failed is done again

    def settle(
        self, records: Sequence[Record], positions: Positions, stopping: threading.Event
    ) -> None:
        group = self._dispatcher.group
        moves = positions.moves((r.partition, r.offset) for r in records)
        incoming = self._dispatcher.decode_all(records)
        known = _seen(self._store, group, incoming)
        notes: dict[str, Any] = {}
        for index, item in enumerate(incoming):
            if item is None:
                continue
            if stopping.is_set():
                raise Stopping
            if item.receipt not in known and item.identity not in notes:
                work = self._store.notes(group, item.message, item.identity, item.endpoint.title)
                self._dispatcher.call(index, item, work)
                notes[item.identity] = work
            else:
                self._dispatcher.repeated(item)
        with self._store.transaction(group, moves) as transaction:
            fresh = _claimed(transaction, incoming)
            for item in incoming:
                if item is None:
                    continue
                if (item.receipt is None or item.receipt in fresh) and item.identity in notes:
                    transaction.accept(notes.pop(item.identity))
        positions.advance(moves)


class Plain:
    atomic = False

    def __init__(self, dispatcher: Dispatcher, dead_letters: DeadLetters) -> None:
        self._dispatcher = dispatcher
        self._dead_letters = dead_letters

    def settle(
        self, records: Sequence[Record], positions: Positions, stopping: threading.Event
    ) -> None:
        handled = 0
        try:
            for record in records:
                if stopping.is_set():
                    return
                item = self._dispatcher.decode_at(handled, record)
                if item is not None:
                    self._dispatcher.call(handled, item, None)
                handled += 1
        finally:
            done = [(r.partition, r.offset) for r in records[:handled]]
            positions.advance(positions.moves(done))

    def bury(self, record: Record, failure: Failure, positions: Positions) -> None:
        self._dead_letters.send(record.raw, failure)
        positions.advance(positions.moves([(record.partition, record.offset)]))


def _claimed(transaction: BatchTransaction, incoming: Sequence[Incoming | None]) -> set[str | None]:
    """The receipts that are new, of those records that have one."""
    receipts = _receipts(incoming)
    return {*transaction.claim(receipts)} if receipts else set()


def _seen(store: Store, group: str, incoming: Sequence[Incoming | None]) -> set[str | None]:
    receipts = _receipts(incoming)
    return {*store.seen(group, receipts)} if receipts else set()


def _receipts(incoming: Sequence[Incoming | None]) -> list[str]:
    return [item.receipt for item in incoming if item is not None and item.receipt is not None]
