"""Where a letter's record can go. What a letter tells may be anything, so only topics and groups
that are known count; for others somebody has to say where."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from shop.topics import ALL, DEADLETTER

ALL_GROUPS = "all"
TOPICS = tuple(topic.name for topic in ALL if topic is not DEADLETTER)


@dataclass(frozen=True)
class Destinations:
    """`read_by`: the topics that each group reads."""

    read_by: Mapping[str, Collection[str]]
    topics: Collection[str] = TOPICS

    def readers(self, topic: str) -> list[str]:
        return [group for group, topics in self.read_by.items() if topic in topics]

    def topic_of(self, told: str | None, target: str | None) -> str | None:
        """`target`: for letters that tell none of these."""
        return told if told in self.topics else target

    def group_of(self, told: str | None, topic: str, target: str | None) -> str | None:
        """None is all groups. `target`: for letters that tell a group that does not read the topic;
        another one, or ALL_GROUPS."""
        if told is None or target is None or told in self.readers(topic):
            return told
        return None if target == ALL_GROUPS else target
