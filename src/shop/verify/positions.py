"""Positions held against the log: whether each is of this topic, and within what it holds."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from shop.kafka.connection import Connection
from shop.kafka.groups import committed_offsets, group_names
from shop.kafka.offsets import Bounds
from shop.kafka.store import Partition
from shop.services import SERVICE_OF_GROUP
from shop.verify.groups import Group
from shop.verify.report import Example, Kind, Notes, place

_STREAMS = "streams"  # the group of `shop stream`, which only derives and takes nobody's place

_ADVICE = (
    "stop the group and choose where it goes on: set its rows in the table position of its "
    "database, or delete them and those in topic_read to begin anew"
)
_RESTORE = (
    "its database is gone, or older than what it told Kafka: put the right one back; where there "
    "is none, the group begins anew and handles all again that it does not know of"
)


def partitions_of(topics: Mapping[str, Any], groups: Sequence[Group]) -> list[Partition]:
    """Of the topics there are, the partitions that any group reads or has a position in."""
    stands = {partition.topic for group in groups for partition in group.positions}
    return [
        Partition(name, number)
        for name, topic in sorted(topics.items())
        if name in stands or any(group.reads(name) for group in groups)
        for number in sorted(topic.partitions)
    ]


def made_anew(groups: Iterable[Group], ids: Mapping[str, str]) -> set[str]:
    """The topics that are others than those that some group has read under these names. `ids`: of
    the topics that there are."""
    return {
        topic
        for group in groups
        for topic, id_ in group.topic_ids.items()
        if topic in ids and ids[topic] != id_
    }


def check_positions(
    group: Group,
    ids: Mapping[str, str],
    before: Mapping[Partition, Bounds],
    after: Mapping[Partition, Bounds],
    notes: Notes,
) -> Group:
    """The group with those of its positions that are in the log: the others tell of no record.

    `before` and `after`: the bounds of the logs around the moment when the positions were read, so
    that neither records that come nor records that retention deletes look like a fault."""
    sound = dict(group.positions)
    for partition, position in sorted(group.positions.items()):
        topic, number = partition
        example = Example(record=place(topic, number, position))
        if topic not in ids:
            what = "of a topic that does not exist"
        elif group.topic_ids.get(topic, ids[topic]) != ids[topic]:
            what = "of a topic that was made anew since"
        elif partition not in after or position > after[partition].high:
            what = "past the end of the log"
        elif partition in before and position < before[partition].low:
            what = "in front of records that were deleted unread"
        else:
            notes.remark("records not read yet", group.name, after[partition].high - position)
            continue
        notes.found(Kind.BEYOND_THE_LOG, what, f"group {group.name}", _ADVICE, example)
        if "deleted" not in what:
            del sound[partition]
    return replace(group, positions=sound)


def committed_before(connection: Connection) -> dict[str, dict[Partition, int]]:
    """What each of our groups has committed to Kafka. To be asked before the databases, which are
    always ahead of it."""
    names = [name for name in group_names(connection) if name in SERVICE_OF_GROUP]
    return committed_offsets(connection, names)


def check_committed(
    groups: Iterable[Group],
    committed: Mapping[str, Mapping[Partition, int]],
    begins: Mapping[Partition, Bounds],
    notes: Notes,
) -> None:
    """A database that is behind what its group has told Kafka is not the one that did the work: it
    is gone, or was put back from a copy. A group that knows a topic and has handled nothing of it
    has committed where it begins: by auto-offset-reset latest at the end."""
    for group in groups:
        for partition, offset in sorted(committed.get(group.name, {}).items()):
            position = group.positions.get(partition)
            begin = begins[partition].low if partition in begins else 0
            if position is None and (offset <= begin or partition.topic in group.topic_ids):
                continue
            if (position or 0) < offset:
                example = Example(record=place(*partition, position or 0), detail=f"not {offset}")
                where = f"group {group.name}"
                notes.found(Kind.LOST, "what its database had done", where, _RESTORE, example)


class Others:
    """Groups that are not ours and have read our topics: after a hand-over one of them did what
    ours did not. Asked for when first needed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._read: dict[Partition, dict[str, int]] | None = None

    def beyond(self, partition: Partition, offset: int) -> Collection[str]:
        """The names of those that have committed an offset past this one."""
        if self._read is None:
            self._read = self._ask()
        read = self._read.get(partition, {})
        return sorted(name for name, committed in read.items() if committed > offset)

    def _ask(self) -> dict[Partition, dict[str, int]]:
        ours = {*SERVICE_OF_GROUP, _STREAMS}
        names = [name for name in group_names(self._connection) if name not in ours]
        found: dict[Partition, dict[str, int]] = {}
        for name, committed in committed_offsets(self._connection, names).items():
            for partition, offset in committed.items():
                found.setdefault(partition, {})[name] = offset
        return found
