"""What can go wrong between a service and Kafka. Each message is one line that says what to do."""

from typing import Any


class KafkaError(Exception):
    """The base of all errors of this layer."""


class ListenerDeclarationError(KafkaError):
    """A listener is declared in a way that cannot work; raised when its container is built."""


class BrokerUnreachable(KafkaError):
    """No broker answered in time, or what answered is not Kafka."""


class TopicMissing(KafkaError):
    """A topic that is needed does not exist; nothing here creates topics on the way."""


class SendFailed(KafkaError):
    """The broker refused a record for good, or did not acknowledge it in time.

    `cause` is librdkafka's error where there is one."""

    def __init__(self, message: str, cause: Any = None) -> None:
        super().__init__(message)
        self.cause = cause


class PermanentFailure(KafkaError):
    """Trying again cannot help. A listener raises a subclass to say so of its record."""


class Unavailable(KafkaError):
    """What a listener needs is away, e.g. a mail server. A listener raises a subclass to say that
    it is not its record's fault: the record waits for as long as that lasts, and no attempt
    counts."""


class HeldBack(PermanentFailure):
    """An earlier record of the same key became a dead letter, and this one is not to pass it."""


class DeadLetterTooLarge(KafkaError):
    """A dead letter that its topic would not take."""


class WireError(PermanentFailure):
    """The bytes of a record are not what its topic carries."""


class PositionLost(KafkaError):
    """The log no longer has the record that a group would read next."""


class ListenerFailed(KafkaError):
    """A record kept failing, and there is no place for dead letters, or it cannot be written to;
    the group stopped in front of it, with nothing skipped."""


class Fenced(KafkaError):
    """Another consumer has moved the position that this one held. It writes nothing more."""


class StoreUnavailable(KafkaError):
    """The store of positions cannot be reached now; it is no record's fault."""
