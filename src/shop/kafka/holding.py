"""Keys whose records are held back behind one that became a dead letter."""

from collections.abc import Sequence

from shop.kafka.dead_letter import DeadLetters, Failure, letter_id
from shop.kafka.dispatch import Dispatcher, Incoming, Record
from shop.kafka.errors import HeldBack
from shop.kafka.ids import derived_id
from shop.kafka.store import BatchTransaction, HeldKey, Store


class Holding:
    """For one transaction. What is held back becomes a dead letter too, behind the first one; when
    they are redriven each passes only in its turn, so that their order stays."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: Store,
        transaction: BatchTransaction,
        dead_letters: DeadLetters,
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._transaction = transaction
        self._dead_letters = dead_letters

    def let_pass(
        self, records: Sequence[Record], incoming: Sequence[Incoming | None]
    ) -> list[Incoming | None]:
        """What is to be handled; None where a record is held back."""
        keys = [item and self._key(record) for record, item in zip(records, incoming, strict=True)]
        held = self._transaction.held({key for key in keys if key is not None})
        return [
            item if key is None or self._passes(record, key, held.get(key, []), item) else None
            for record, key, item in zip(records, keys, incoming, strict=True)
        ]

    def failed(self, record: Record) -> None:
        """From now on its key is held back."""
        key = self._key(record)
        if key is not None:
            self._transaction.hold(key, letter_id(record.raw, self._dispatcher.group))

    def _passes(
        self, record: Record, key: HeldKey, letters: list[str], item: Incoming | None
    ) -> bool:
        if not letters:
            return True
        group = self._dispatcher.group
        own = letter_id(record.raw, group)
        if own == letters[0]:
            self._transaction.release(key, letters.pop(0))
            return True
        if item is not None and item.receipt and self._store.seen(group, [item.receipt]):
            return True  # a repeat of what was handled before: it changes nothing
        error = HeldBack(f"held back behind letter {letters[0]}, which has the same key")
        self._transaction.publish(self._dead_letters.letter(record.raw, Failure(group, error, 0)))
        self._transaction.hold(key, own)
        if own not in letters:
            letters.append(own)
        return False

    def _key(self, record: Record) -> HeldKey | None:
        topic = record.partition.topic
        key: bytes | None = record.raw.key()
        if key is None or not self._dispatcher.endpoint_of(topic).declaration.hold_back:
            return None
        return HeldKey(topic, derived_id("", key.hex()))
