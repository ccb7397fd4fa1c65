"""What a group's records came to, and how long it took, as metrics.

Of OpenTelemetry only the API is used here. Its histograms cost 5 us per value, which is more than
a tenth of a record, so what is measured per record goes into a Histogram of our own, which
whoever sets up the SDK hands on (docs/decisions/0015).
"""

import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from opentelemetry.metrics import Meter

Outcome: TypeAlias = Literal["handled", "duplicate", "failed", "retried", "dead", "fenced"]

OUTCOMES: Final[Sequence[Outcome]] = (
    "handled",  # it took effect, or was passed over on purpose
    "duplicate",  # its receipt was there
    "failed",  # an attempt failed
    "retried",  # it was set back, to be tried again
    "dead",  # it became a dead letter
    "fenced",  # it was set back since another consumer had moved the position
)
MOST_TOPICS = 200  # of which there are series; a pattern may match any number
OTHER = "_OTHER"  # the topic of those beyond

_CALLS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
    30, 60,
)  # fmt: skip
_AGES_S = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 21_600,
    86_400,
)  # fmt: skip


class Counted(Protocol):
    """Told what records came to."""

    def __call__(self, group: str, topic: str, outcome: Outcome, records: int = 1) -> None: ...


def uncounted(group: str, topic: str, outcome: Outcome, records: int = 1) -> None:
    """Where there are no metrics."""


class Values(NamedTuple):
    """What a series has taken so far. `counts` has one more than there are bounds."""

    attributes: Mapping[str, str]
    counts: Sequence[int]
    total: float
    least: float
    most: float


class Series:
    """Thread-safe."""

    def __init__(self, bounds: Sequence[float], attributes: Mapping[str, str]) -> None:
        self._bounds = bounds
        self._attributes = attributes
        self._lock = threading.Lock()
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._least = float("inf")
        self._most = float("-inf")

    def record(self, values: Sequence[float]) -> None:
        """Best many at once: sorted, they cost a third of what they cost one by one. Negative
        ones, of clocks that differ, count as 0."""
        if not values:
            return
        ordered = sorted(values)
        if ordered[0] < 0:
            ordered = [max(0.0, value) for value in ordered]
        done = 0
        with self._lock:
            for index, bound in enumerate(self._bounds):
                up_to = bisect_right(ordered, bound, done)
                self._counts[index] += up_to - done
                done = up_to
                if done == len(ordered):
                    break
            self._counts[-1] += len(ordered) - done
            self._total += sum(ordered)
            self._least = min(self._least, ordered[0])
            self._most = max(self._most, ordered[-1])

    def values(self) -> Values:
        with self._lock:
            return Values(
                self._attributes, tuple(self._counts), self._total, self._least, self._most
            )


class Histogram:
    """With fixed upper bounds, each inclusive, in seconds. Thread-safe."""

    def __init__(self, name: str, description: str, bounds: Sequence[float]) -> None:
        self.name = name
        self.description = description
        self.bounds = bounds
        self._series: dict[tuple[str, ...], Series] = {}

    def series(self, **attributes: str) -> Series:
        """The one with these attributes, always given in the same order."""
        key = tuple(attributes.values())
        found = self._series.get(key)
        return found or self._series.setdefault(key, Series(self.bounds, attributes))

    def values(self) -> list[Values]:
        """Of each series that has any."""
        found = (series.values() for series in [*self._series.values()])
        return [values for values in found if any(values.counts)]


class ListenerMetrics:
    """The instruments that the groups of a process share. Thread-safe."""

    def __init__(self, meter: Meter) -> None:
        self._records = meter.create_counter(
            "shop.listener.records", "{record}", "Records of a group, by what they came to"
        )
        self.calls = Histogram("shop.listener.duration", "One call of a listener", _CALLS_S)
        self.ages = Histogram(
            "shop.listener.age", "From a record's timestamp until its effect is committed", _AGES_S
        )
        self._lock = threading.Lock()
        self._topics: set[str] = set()
        self._begun: set[tuple[str, str]] = set()

    def topic(self, name: str) -> str:
        """What series call a topic."""
        if name in self._topics:
            return name
        with self._lock:
            if len(self._topics) >= MOST_TOPICS:
                return OTHER
            self._topics.add(name)
        return name

    def begin(self, group: str, topics: Iterable[str]) -> None:
        """Show zeros: what is first seen at 1 has not increased, to those who ask for a rate."""
        for topic in map(self.topic, topics):
            if (group, topic) not in self._begun:
                self._begun.add((group, topic))
                for outcome in OUTCOMES:
                    self._add(0, group, topic, outcome)

    def count(self, group: str, topic: str, outcome: Outcome, records: int = 1) -> None:
        self.begin(group, [topic])
        self._add(records, group, self.topic(topic), outcome)

    def _add(self, records: int, group: str, topic: str, outcome: Outcome) -> None:
        attributes = {"group": group, "topic": topic, "outcome": outcome}
        self._records.add(records, attributes)
