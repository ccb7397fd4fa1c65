"""Waiting for what an admin client was asked."""

from typing import Any

from confluent_kafka import KafkaException

from shop.kafka.errors import BrokerUnreachable, KafkaError


def answered(future: Any, timeout: float, what: str, kind: type[KafkaError] = KafkaError) -> Any:
    """The future's result. Raises `kind`, of `what` could not be done, from the KafkaException that
    it ended in; BrokerUnreachable when it is not there in `timeout` seconds."""
    try:
        return future.result(timeout)
    except KafkaException as error:
        raise kind(f"{what}: {error.args[0].str()}") from error
    except TimeoutError:
        raise BrokerUnreachable(f"{what}: no answer within {timeout:.0f} s") from None


def code_of(error: KafkaError) -> int | None:
    """Kafka's code of an error that `answered` raised."""
    cause = error.__cause__
    return cause.args[0].code() if isinstance(cause, KafkaException) else None
