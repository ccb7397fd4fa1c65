"""The topics on which every user may be sent a record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shop.events import User
from shop.kafka.topic import Topic
from shop.topics import USER_GENERATE_READING_REPORT


@dataclass(frozen=True)
class Target:
    """`event` makes what the topic carries of a user's uuid."""

    topic: Topic[Any]
    event: Callable[[str], Any]


def _user(uuid: str) -> User:
    return User(uuid=uuid)


TARGETS: Mapping[str, Target] = {
    target.topic.name: target for target in [Target(USER_GENERATE_READING_REPORT, _user)]
}
