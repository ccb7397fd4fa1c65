"""What an audit says: findings, which break a promise, and remarks, which do not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from shop.kafka.wire import Message

MOST_EXAMPLES = 5


class Kind(StrEnum):
    """In the terms of Jepsen's checkers where they have one."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    UNDECIDED = "undecided"
    DECIDED_TWICE = "decided twice"
    OUT_OF_ORDER = "out of order"
    UNPUBLISHED = "unpublished"
    UNMAILED = "unmailed"
    BEYOND_THE_LOG = "position beyond the log"


@dataclass(frozen=True)
class Example:
    """One case, by what it can be looked up with. `record` is `TOPIC[partition]@offset`."""

    id: str | None = None
    record: str | None = None
    event_id: str | None = None
    detail: str | None = None

    def __str__(self) -> str:
        event = f"event {self.event_id}" if self.event_id else None
        return " ".join(part for part in (self.id, self.record, event, self.detail) if part)


@dataclass
class Finding:
    """`where`: the group, database or topic. `advice`: what to do about it."""

    kind: Kind
    what: str
    where: str
    advice: str
    count: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass
class Remark:
    """What is allowed, and good to know."""

    what: str
    where: str
    count: int = 0


@dataclass(frozen=True)
class Report:
    """`records` were read, of topics with all their partitions, in `seconds`."""

    findings: Sequence[Finding]
    remarks: Sequence[Remark]
    records: int
    seconds: float

    @property
    def clean(self) -> bool:
        return not self.findings


class Notes:
    """Gathers what is found, by kind, what and where."""

    def __init__(self) -> None:
        self._findings: dict[tuple[Kind, str, str], Finding] = {}
        self._remarks: dict[tuple[str, str], Remark] = {}

    def found(
        self, kind: Kind, what: str, where: str, advice: str, example: Example, count: int = 1
    ) -> None:
        finding = self._findings.setdefault((kind, what, where), Finding(kind, what, where, advice))
        finding.count += count
        if len(finding.examples) < MOST_EXAMPLES:
            finding.examples.append(example)

    def remark(self, what: str, where: str, count: int = 1) -> None:
        if count:
            self._remarks.setdefault((what, where), Remark(what, where)).count += count

    @property
    def findings(self) -> list[Finding]:
        order = list(Kind)
        return sorted(self._findings.values(), key=lambda f: (order.index(f.kind), f.where))

    @property
    def remarks(self) -> list[Remark]:
        return sorted(self._remarks.values(), key=lambda remark: (remark.what, remark.where))


def place(topic: str, partition: int, offset: int) -> str:
    return f"{topic}[{partition}]@{offset}"


def example_of(message: Message[object], id_: str | None = None) -> Example:
    at = place(message.topic, message.partition, message.offset)
    return Example(id_, at, message.event_id)
