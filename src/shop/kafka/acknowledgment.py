"""Saying that a record is handled, by hand."""

from shop.kafka.errors import KafkaError


class Acknowledgment:
    """A listener's word on one record. Used by the thread that calls the listener, once.

    A listener that asks for an Acknowledgment must use it: returning without a word means "not
    handled", and the record comes again after the group's redelivery delay. Nothing of what that
    call wrote or sent remains.
    """

    __slots__ = ("_said", "delay")

    def __init__(self) -> None:
        self._said = ""
        self.delay: float | None = None

    def acknowledge(self) -> None:
        """The record is handled. Together with what the listener wrote and sent, it counts from
        the commit of the batch on; until then a crash brings the record again."""
        self._say("acknowledge")

    def nack(self, delay: float) -> None:
        """Not handled: bring the record again after `delay` seconds. Later records of its
        partition wait behind it, other partitions go on."""
        if not 0 <= delay <= 86_400:
            raise ValueError(f"a nack's delay is 0 to 86400 seconds, not {delay}")
        self._say("nack")
        self.delay = delay

    @property
    def acknowledged(self) -> bool:
        return self._said == "acknowledge"

    def _say(self, word: str) -> None:
        if self._said:
            raise KafkaError(f"{word}() after {self._said}(): a record is answered once")
        self._said = word
