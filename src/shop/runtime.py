"""What a process of the shop does from its start to its end."""

import gc
import logging
import os
import threading
import time
from collections.abc import Sequence

from shop.child import OWNER_FD, READY_FD
from shop.containers import Shop
from shop.db.worker import Worker
from shop.kafka.container import ListenerContainer
from shop.kafka.errors import KafkaError
from shop.kafka.membership import resumable
from shop.services import API_SERVICES, SERVICE_OF_GROUP
from shop.settings import SettingsError
from shop.watch import GroupDied, HealthServer, Watch

log = logging.getLogger(__name__)

START_S = 30.0  # for brokers to answer: they were there a moment ago, but may be busy
GRACE_S = 5.0
DRAIN_S = 4.0  # for what is in hand when a process is asked to stop
WATCH_S = 1.0
ORPHANED = 5  # the exit code of a process that did not end in time after its owner


def run_listeners(
    shop: Shop, groups: Sequence[str], *, instance: str | None, stop: threading.Event
) -> None:
    """Run groups until `stop` is set, then drain.

    Raises KafkaError, StoreUnavailable or the like in one line when it cannot start, and
    GroupDied or Stalled when a group had to stop; the other groups are drained first."""
    settings = shop.settings()
    known = shop.registry().groups
    for name in settings.listeners:
        if name.replace("_", "-") not in known and name not in known:
            raise SettingsError(
                f"SHOP_LISTENERS__{name.upper()}: there is no group {name}; "
                f"there are {', '.join(known)}"
            )
    failures: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failures.append(error)
        stop.set()

    def died(group: str, error: BaseException) -> None:
        told = isinstance(error, KafkaError)  # it names its group
        what = str(error) if told else f"group {group}: {type(error).__name__}: {error}"
        failed(GroupDied(what))

    sources = {group: shop.registry().sources(group) for group in groups}
    named = resumable(shop.connection(), sources) if instance else set()
    containers = [
        shop.listener_container(
            group=group,
            instance=instance if group in named else None,
            on_failure=died,
        )
        for group in groups
    ]
    services = dict.fromkeys(SERVICE_OF_GROUP[group] for group in groups)
    relays = [shop.relay(shop.databases().of(name), on_failure=failed) for name in services]
    stewards = [steward for group in groups for steward in shop.stewards(group=group)]
    watch = Watch(containers, settings.kafka.stalled_after_s)
    metrics = shop.metrics()
    if metrics is not None:
        from shop.gauges import show_fan_outs, show_groups, show_outboxes

        show_groups(metrics, watch, containers, shop.connection())
        show_outboxes(metrics, [shop.databases().of(name) for name in services])
        if "batch" in groups:
            show_fan_outs(metrics, shop.databases().of("users"))
    server = health_server(shop, watch)
    try:
        for container in containers:
            container.start(START_S)
        for relay in relays:
            relay.start()
        for steward in stewards:
            steward.start()
        while not stop.is_set() and not all(c.wait_until_assigned(0.05) for c in containers):
            pass
        if not stop.is_set():
            log.info("listening: %s", ", ".join(groups))
            gc.collect()
            gc.freeze()  # what is there now stays: the collector need not walk it again
            announce_ready()
        while not stop.wait(WATCH_S):
            watch.look()
    finally:
        if server is not None:
            server.close()
        _stop_all(shop, containers, stewards, relays)
    if failures:
        raise failures[0]
    log.info("stopped")


def _stop_all(
    shop: Shop,
    containers: Sequence[ListenerContainer],
    stewards: Sequence[Worker],
    relays: Sequence[Worker],
) -> None:
    """Relays last, so that they publish the last of what the others sent; all within the time
    that a process has to stop."""
    deadline = time.monotonic() + DRAIN_S
    ended = []
    first: Sequence[ListenerContainer | Worker] = [*containers, *stewards]
    for together in (first, relays):
        for worker in together:
            worker.ask_to_stop()
        ended += [worker.stop(deadline - time.monotonic()) for worker in together]
    shop.relay_template().close(max(0.0, min(1.0, deadline - time.monotonic())))
    if all(ended):  # else a thread may still be writing
        shop.databases().close()
    else:
        log.warning("not all ended in %.0f s; what was in hand is done again later", DRAIN_S)


def run_api(shop: Shop, *, stop: threading.Event) -> None:
    """Serve the API until `stop` is set, then answer what is running and publish what is there.

    Takes orders whether Kafka is up or not. Raises HttpError or StoreUnavailable at start."""
    server = shop.http_server()
    failures: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failures.append(error)
        stop.set()

    databases = [shop.databases().of(name) for name in API_SERVICES]
    relays = [shop.relay(database, on_failure=failed) for database in databases]
    stewards = shop.api_stewards()
    metrics = shop.metrics()
    if metrics is not None:
        from shop.gauges import show_letters, show_outboxes

        show_letters(metrics, shop.databases().of("deadletters"))
        show_outboxes(metrics, databases)
    scraped = health_server(shop)

    def serve() -> None:
        try:
            server.run(started=announce_ready)
        except BaseException as error:
            failed(error)
        stop.set()  # also when it ended by itself

    thread = threading.Thread(target=serve, name="http", daemon=True)
    try:
        for relay in relays:
            relay.start()
        for steward in stewards:
            steward.start()
        thread.start()
        log.info("serving on http://%s:%d", server.host, server.port)
        stop.wait()
    finally:
        if scraped is not None:
            scraped.close()
        server.stop()
        thread.join(DRAIN_S)
        _stop_all(shop, [], stewards, relays)
    if failures:
        raise failures[0]
    log.info("stopped")


def health_server(shop: Shop, watch: Watch | None = None) -> HealthServer | None:
    """What answers at SHOP_HEALTH__PORT; None where that is not set. Raises SettingsError when it
    is taken."""
    health, metrics = shop.settings().health, shop.metrics()
    if not health.port:
        return None
    try:
        return HealthServer(health.host, health.port, watch, metrics.page if metrics else None)
    except OSError as error:
        raise SettingsError(
            f"cannot answer on {health.host} port {health.port}: {error.strerror}; choose another "
            "with SHOP_HEALTH__PORT, one for each process"
        ) from None


def announce_ready() -> None:
    """Tell whoever started this process that it does its work now."""
    fd = os.environ.pop(READY_FD, None)
    if fd is not None:
        os.write(int(fd), b"ready\n")
        os.close(int(fd))


def exit_when_owner_dies(stop: threading.Event) -> None:
    """Watch the pipe whose other end only the owner holds. At its end, `stop` is set; a process
    that is still there GRACE_S seconds later is ended hard."""
    fd = os.environ.pop(OWNER_FD, None)
    if fd is None:
        return

    def watch() -> None:
        while os.read(int(fd), 1):
            pass
        log.warning("the process that started this one is gone; stopping")
        stop.set()
        hard_end = threading.Timer(GRACE_S, os._exit, args=(ORPHANED,))
        hard_end.daemon = True
        hard_end.start()

    threading.Thread(target=watch, name="owner", daemon=True).start()
