"""A topic: its name, what it carries and how, its key and its partitions, said once."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from shop.kafka.wire import Codec

E = TypeVar("E")

_NAME = re.compile(r"\A[A-Za-z0-9._-]{1,249}\Z")


@dataclass(frozen=True, eq=False)
class Topic(Generic[E]):
    """`key` gives the record key of an event, for those who send without naming one."""

    name: str
    codec: Codec[E]
    key: Callable[[E], str] | None = None
    partitions: int = 3
    config: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ValueError(f"{self.name!r} is not a Kafka topic name")

    @property
    def event_type(self) -> Any:
        return self.codec.event_type

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class TopicPattern(Generic[E]):
    """Every topic whose whole name matches a regular expression, also one created later.

    `codec` decodes them all, since their events differ.
    """

    regex: str
    codec: Codec[E]

    def __post_init__(self) -> None:
        re.compile(self.regex)

    def matches(self, topic: str) -> bool:
        return re.fullmatch(self.regex, topic) is not None

    @property
    def event_type(self) -> Any:
        return self.codec.event_type

    @property
    def name(self) -> str:
        """As librdkafka wants a pattern: with a leading ^."""
        return "^" + self.regex.removeprefix("^").removesuffix("$") + "$"

    def __str__(self) -> str:
        return self.name
