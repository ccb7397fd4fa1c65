"""Where a letter's record can go. What a letter tells may be anything, so only topics and groups
that are known count; for others somebody has to say where."""

from collections.abc import Collection
from dataclasses import dataclass

from shop.services import SERVICE_OF_GROUP
from shop.topics import ALL, DEADLETTER

ALL_GROUPS = "all"


@dataclass(frozen=True)
class Destinations:
    topics: Collection[str]
    groups: Collection[str]

    def topic_of(self, told: str | None, target: str | None) -> str | None:
        """`target`: for letters that tell none of these."""
        return told if told in self.topics else target

    def group_of(self, told: str | None, target: str | None) -> str | None:
        """None is all groups. `target`: for letters that tell a group that is none of these; one of
        them, or ALL_GROUPS."""
        if told is None or told in self.groups:
            return told
        return None if target == ALL_GROUPS else target


OURS = Destinations(
    [topic.name for topic in ALL if topic is not DEADLETTER], list(SERVICE_OF_GROUP)
)
