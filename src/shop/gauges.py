"""The gauges of a process: what is not counted, but looked at when the metrics are read.

Reading them takes no time and cannot fail: brokers and databases are asked in the background. Where
no answer came for a minute, there is no series; a number that might be wrong is none.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from shop.db.database import Database
from shop.db.relay import oldest_waiting, outbox_size
from shop.deadletters.reading import waiting_by_group
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.errors import StoreUnavailable
from shop.kafka.groups import committed_offsets
from shop.kafka.lag import Logs, logs_of
from shop.kafka.metrics import OTHER, ListenerMetrics
from shop.kafka.store import Partition
from shop.metrics import Metrics, Numbers
from shop.services import SERVICE_OF_GROUP
from shop.users.fan_out import unfinished
from shop.watch import Watch

log = logging.getLogger(__name__)

Position = tuple[str, Partition, int]  # group, partition, the next offset that it reads


def show_groups(
    metrics: Metrics, watch: Watch, containers: Sequence[ListenerContainer], connection: Connection
) -> None:
    """Whether the groups of a process are ready and get on, and how far they are behind."""

    def stalled() -> Numbers:
        return [({"group": group}, 1 if why else 0) for group, why in watch.last_stalls.items()]

    def positions() -> list[Position]:
        return [(c.group, p, at) for c in containers for p, at in c.positions.items()]

    logs = metrics.background(
        "lag", lambda: logs_of(connection, [place[1:] for place in positions()])
    )
    _show_readiness(metrics, lambda: {group: not why for group, why in watch.troubles().items()})
    metrics.gauge("shop.listener.stalled", "", "Whether the group does not get on", stalled)
    _show_lag(metrics, lambda: (positions(), logs.last))


def show_streams(
    metrics: Metrics,
    group: str,
    topics: Collection[str],
    connection: Connection,
    reading: Callable[[], bool],
) -> None:
    """Whether the streams' group has partitions, and how far what it committed is behind in these
    topics. Its own end in transactions' markers, which nobody reads."""

    def ask() -> tuple[list[Position], Logs]:
        committed = committed_offsets(connection, [group])[group]
        places = [(p, at) for p, at in committed.items() if p.topic in topics]
        return [(group, *place) for place in places], logs_of(connection, places)

    found = metrics.background("lag", ask)
    _show_readiness(metrics, lambda: {group: reading()})
    _show_lag(metrics, lambda: found.last or ([], None))


def _show_lag(metrics: Metrics, look: Callable[[], tuple[Sequence[Position], Logs | None]]) -> None:
    """`look`: where groups are, and the logs that they read."""

    def lag() -> Numbers:
        return _by_partition(metrics.listeners, *look(), Logs.lag, sum)

    def oldest() -> Numbers:
        now = time.time()

        def age(known: Logs, partition: Partition, position: int) -> float | None:
            return known.oldest(partition, position, now)

        return _by_partition(metrics.listeners, *look(), age, max)

    metrics.gauge("shop.listener.lag", "{record}", "Offsets that are left to be read", lag)
    metrics.gauge("shop.listener.oldest", "s", "Age of the oldest unhandled record", oldest)


def _show_readiness(metrics: Metrics, ready: Callable[[], Mapping[str, bool]]) -> None:
    """Whether each group can handle records."""

    def look() -> Numbers:
        return [({"group": group}, int(is_ready)) for group, is_ready in ready().items()]

    metrics.gauge("shop.listener.ready", "", "Whether the group can handle records", look)


def show_outboxes(metrics: Metrics, databases: Sequence[Database]) -> None:
    """What waits in the outboxes. Processes that share a database all show the same of it."""

    def ask() -> dict[str, tuple[int, int, int | None]]:
        found = {}
        for database in databases:
            try:
                found[database.name] = (*outbox_size(database), oldest_waiting(database))
            except StoreUnavailable as error:
                log.debug("%s", error)
        return found

    def records() -> Numbers:
        return [({"database": d}, waiting) for d, (waiting, _, _) in (outboxes.last or {}).items()]

    def parked() -> Numbers:
        return [({"database": d}, count) for d, (_, count, _) in (outboxes.last or {}).items()]

    def age() -> Numbers:
        found = (outboxes.last or {}).items()
        return [({"database": d}, _age(since)) for d, (_, _, since) in found]

    outboxes = metrics.background("outboxes", ask)
    metrics.gauge("shop.outbox.records", "{record}", "Records that wait to be published", records)
    metrics.gauge("shop.outbox.age", "s", "Age of the oldest record that waits", age)
    metrics.gauge("shop.outbox.parked", "{record}", "Records that no broker takes", parked)


def show_fan_outs(metrics: Metrics, users: Database) -> None:
    """Those that still run; the brokers may refuse one's records for long. Processes that share the
    database all show the same."""

    def running() -> Numbers:
        return [] if found.last is None else [({}, found.last[0])]

    def age() -> Numbers:
        return [] if found.last is None else [({}, _age(found.last[1]))]

    found = metrics.background("fan-outs", lambda: unfinished(users))
    metrics.gauge("shop.fan_out.running", "", "Fan-outs that are not finished", running)
    metrics.gauge("shop.fan_out.age", "s", "Since the oldest of them was asked for", age)


def _age(since: int | None) -> float:
    """Seconds since then, which is in milliseconds since the epoch."""
    return 0.0 if since is None else max(0.0, time.time() - since / 1000)


def show_letters(metrics: Metrics, letters: Database) -> None:
    """Dead letters that wait for somebody. Groups of other systems are one."""

    def waiting() -> Numbers:
        found = by_group.last
        if found is None:
            return []
        shown = dict.fromkeys([*SERVICE_OF_GROUP, OTHER], 0)
        for group, count in found.items():
            shown[group if group in SERVICE_OF_GROUP else OTHER] += count
        return [({"group": group}, count) for group, count in shown.items()]

    by_group = metrics.background("letters", lambda: waiting_by_group(letters))
    metrics.gauge("shop.deadletters.waiting", "{letter}", "Dead letters that wait", waiting)


def _by_partition(
    metrics: ListenerMetrics,
    positions: Sequence[Position],
    logs: Logs | None,
    number: Callable[[Logs, Partition, int], float | None],
    together: Callable[[Sequence[float]], float],
) -> Numbers:
    """`together`: of the topics that have no series of their own."""
    if logs is None:
        return []
    found: dict[tuple[str, str, int], list[float]] = {}
    for group, partition, position in positions:
        value = number(logs, partition, position)
        if value is not None:
            key = group, metrics.topic(partition.topic), partition.number
            found.setdefault(key, []).append(value)
    return [
        ({"group": group, "topic": topic, "partition": str(partition)}, together(values))
        for (group, topic, partition), values in found.items()
    ]
