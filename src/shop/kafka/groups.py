"""Consumer groups as the brokers know them: who is in one, and what it has committed."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaException,
    TopicPartition,
)
from confluent_kafka import KafkaError as Code

from shop.kafka.connection import Connection
from shop.kafka.errors import KafkaError
from shop.kafka.store import Partition

T = TypeVar("T")

# A coordinator that moves, or that has just begun; the same is asked again.
_NOT_YET = (
    Code.COORDINATOR_LOAD_IN_PROGRESS,
    Code.COORDINATOR_NOT_AVAILABLE,
    Code.NOT_COORDINATOR,
)
_AGAIN_S = 0.1


class GroupHasMembers(KafkaError):
    """The offsets of a group can be set only while nobody is in it."""


@dataclass(frozen=True)
class GroupMember:
    """`instance` is the name of a static member (KIP-345), None of others."""

    client_id: str
    host: str
    instance: str | None
    partitions: Sequence[Partition]


@dataclass(frozen=True)
class GroupState:
    """`state` in Kafka's words, e.g. stable, empty; a group that Kafka does not know is dead."""

    name: str
    state: str
    members: Sequence[GroupMember]


def group_names(connection: Connection, timeout: float = 8.0, *, stable: bool = False) -> list[str]:
    """The groups that the brokers know, or of these the stable ones alone. Raises
    BrokerUnreachable, or KafkaError when not all brokers answer."""
    connection.metadata(timeout)
    admin = connection.admin()
    states = {ConsumerGroupState.STABLE} if stable else None
    found = _result(
        lambda: admin.list_consumer_groups(request_timeout=timeout, states=states), timeout
    )
    if found.errors:
        raise KafkaError(f"groups cannot be listed: {found.errors[0].str()}")
    return sorted(group.group_id for group in found.valid)


def describe_groups(
    connection: Connection, names: Collection[str], timeout: float = 8.0
) -> list[GroupState]:
    """The groups of those names, in their order. Raises BrokerUnreachable or KafkaError."""
    connection.metadata(timeout)
    admin = connection.admin()

    def ask(name: str) -> "Future[Any]":
        found: Future[Any] = admin.describe_consumer_groups([name], request_timeout=timeout)[name]
        return found

    return [_state(name, _result(partial(ask, name), timeout)) for name in names]


def committed_offsets(
    connection: Connection, names: Collection[str], timeout: float = 8.0
) -> dict[str, dict[Partition, int]]:
    """What each group has committed; none of one that Kafka does not know. Raises KafkaError."""
    admin = connection.admin()

    def ask(name: str) -> "Future[Any]":
        asked = [ConsumerGroupTopicPartitions(name)]
        found: Future[Any] = admin.list_consumer_group_offsets(asked, request_timeout=timeout)[name]
        return found

    return {
        name: {
            Partition(target.topic, target.partition): target.offset
            for target in _result(partial(ask, name), timeout).topic_partitions
            if target.offset >= 0
        }
        for name in names
    }


def commit_for(
    connection: Connection, group: str, offsets: Mapping[Partition, int], timeout: float = 8.0
) -> None:
    """Set what a group has committed, from outside. Raises GroupHasMembers while it has any, which
    the broker itself sees to, and KafkaError; some partitions may then be set."""
    admin = connection.admin()
    targets = [TopicPartition(*partition, offset) for partition, offset in offsets.items()]
    asked = [ConsumerGroupTopicPartitions(group, targets)]
    answer = _result(
        lambda: admin.alter_consumer_group_offsets(asked, request_timeout=timeout)[group], timeout
    )
    for error in _partition_errors(answer):
        if error.code() in (Code.UNKNOWN_MEMBER_ID, Code.NON_EMPTY_GROUP):
            raise GroupHasMembers(f"group {group} has members")
        raise KafkaError(f"the offsets of group {group} cannot be set: {error.str()}")


def _result(ask: "Callable[[], Future[T]]", timeout: float) -> T:
    deadline = time.monotonic() + timeout
    while True:
        try:
            answer = ask().result(timeout)
            errors = [*_partition_errors(answer), *getattr(answer, "errors", ())]
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() > deadline:
                raise KafkaError(f"Kafka's groups: {error.args[0].str()}") from None
        except TimeoutError:
            raise KafkaError(f"Kafka's groups: no answer within {timeout:.0f} s") from None
        else:
            if not any(error.code() in _NOT_YET for error in errors) or time.monotonic() > deadline:
                return answer
        time.sleep(_AGAIN_S)


def _partition_errors(answer: Any) -> list[Code]:
    targets = getattr(answer, "topic_partitions", ())
    return [target.error for target in targets if target.error is not None]


def _state(name: str, found: Any) -> GroupState:
    return GroupState(
        name,
        found.state.name.lower().replace("_", " "),
        [
            GroupMember(
                member.client_id,
                member.host.removeprefix("/"),
                member.group_instance_id,
                sorted(
                    Partition(target.topic, target.partition)
                    for target in member.assignment.topic_partitions
                ),
            )
            for member in found.members
        ],
    )
