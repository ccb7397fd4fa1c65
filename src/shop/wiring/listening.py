"""What a process that listens is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from shop.databases import Databases
from shop.db.steward import Steward
from shop.db.store import DatabaseStore
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.dead_letter import DeadLetters
from shop.kafka.listener import Declaration, ListenerRegistry
from shop.kafka.retry import Backoff, Retry
from shop.kafka.template import KafkaTemplate
from shop.log.retention import retention
from shop.reports.files import ReportFiles
from shop.reports.listeners import Reports
from shop.services import SERVICE_OF_GROUP
from shop.settings import Listener, Settings
from shop.users.fan_out import fan_out_steward

if TYPE_CHECKING:
    from shop.metrics import Metrics

D = TypeVar("D", Declaration, Retry, Backoff)


def reports(databases: Databases, files: ReportFiles) -> Reports:
    return Reports(databases.of("reports"), files)


def registry(services: Mapping[type, Callable[[], object]]) -> ListenerRegistry:
    """All listeners, each service built only when a group of it is started."""
    found = ListenerRegistry()
    for service, build in services.items():
        found.add(service, build)
    return found


def listener_container(
    settings: Settings,
    connection: Connection,
    databases: Databases,
    registry: ListenerRegistry,
    metrics: "Metrics | None",
    dead_letters: DeadLetters,
    group: str,
    instance: str | None,
    on_failure: Callable[[str, BaseException], None],
) -> ListenerContainer:
    """The container of one group, its database at the newest schema."""
    store = DatabaseStore(databases.of(SERVICE_OF_GROUP[group]))
    overrides = settings.listener(group)
    kafka = settings.kafka
    endpoints = registry.endpoints(group, store.work_type)
    for endpoint in endpoints:
        endpoint.declaration = _overridden(endpoint.declaration, overrides)
    return ListenerContainer(
        connection,
        group,
        endpoints,
        store=store,
        # Those of its own would be read by it again: it stops in front of what it cannot keep.
        dead_letters=DeadLetters() if group == "deadletter" else dead_letters,
        concurrency=overrides.concurrency,
        max_poll_records=overrides.max_poll_records or kafka.max_poll_records,
        auto_offset_reset=kafka.auto_offset_reset,
        instance=instance,
        metrics=metrics.listeners if metrics else None,
        session_timeout_ms=kafka.session_timeout_ms,
        max_poll_interval_ms=kafka.max_poll_interval_ms,
        on_failure=on_failure,
    )


def _overridden(declaration: Declaration, overrides: Listener) -> Declaration:
    declared = declaration.retry or Retry()
    backoff = _with(
        declared.backoff,
        first=overrides.first_delay_s,
        factor=overrides.factor,
        longest=overrides.longest_delay_s,
    )
    retry = _with(declared, attempts=overrides.attempts, backoff=backoff)
    return _with(declaration, retry=retry, hold_back=overrides.hold_back)


def _with(declared: D, **settings: Any) -> D:
    """The same with what is set."""
    return replace(declared, **{n: v for n, v in settings.items() if v is not None})


def stewards(
    settings: Settings,
    databases: Databases,
    fan_out_template: Callable[[], KafkaTemplate],
    group: str,
) -> Sequence[Steward]:
    """What goes on in the background where a group is served."""
    if group == "log":
        keep = settings.audit
        audit = databases.of("log")
        return [retention(audit, keep_days=keep.keep_days, keep_mb=keep.keep_mb)]
    if group == "batch":
        return [fan_out_steward(databases.of("users"), fan_out_template)]
    return []
