"""What a process of the shop does from its start to its end."""

import logging
import os
import threading
from collections.abc import Sequence

from shop.child import OWNER_FD, READY_FD
from shop.containers import SERVICE_OF_GROUP, Shop
from shop.settings import SettingsError

log = logging.getLogger(__name__)

GRACE_S = 5.0


def run_listeners(
    shop: Shop, groups: Sequence[str], *, instance: str | None, stop: threading.Event
) -> None:
    """Run groups until `stop` is set, then drain.

    Raises KafkaError, StoreUnavailable or the like in one line when it cannot start, and
    ListenerFailed or PositionLost when a group had to stop; the other groups are drained first."""
    settings = shop.settings()
    known = shop.registry().groups
    for name in settings.listeners:
        if name.replace("_", "-") not in known and name not in known:
            raise SettingsError(
                f"SHOP_LISTENERS__{name.upper()}: there is no group {name}; "
                f"there are {', '.join(known)}"
            )
    failures: list[BaseException] = []

    def failed(group: str, error: BaseException) -> None:
        failures.append(error)
        stop.set()

    containers = [
        shop.listener_container(group=group, instance=instance, on_failure=failed)
        for group in groups
    ]
    services = dict.fromkeys(SERVICE_OF_GROUP[group] for group in groups)
    relays = [shop.relay(shop.databases().of(service)) for service in services]
    try:
        for container in containers:
            container.start()
        for relay in relays:
            relay.start()
        for container in containers:
            while not stop.is_set() and not container.wait_until_assigned(0.1):
                pass
        if not stop.is_set():
            log.info("listening: %s", ", ".join(groups))
            announce_ready()
        stop.wait()
    finally:
        for container in containers:
            container.ask_to_stop()
        for container in containers:
            container.stop()
        for relay in relays:
            relay.stop()
        shop.relay_template().close(1.0)
        shop.databases().close()
    if failures:
        raise failures[0]
    log.info("stopped")


def run_api(shop: Shop, *, stop: threading.Event) -> None:
    """Serve the API until `stop` is set, then answer what is running and publish what is there.

    Takes orders whether Kafka is up or not. Raises HttpError or StoreUnavailable at start."""
    server = shop.http_server()
    relay = shop.relay(shop.databases().of("orders"))
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            server.run(started=announce_ready)
        except BaseException as error:
            failures.append(error)
        stop.set()  # also when it ended by itself

    thread = threading.Thread(target=serve, name="http", daemon=True)
    try:
        relay.start()
        thread.start()
        log.info("serving on http://%s:%d", server.host, server.port)
        stop.wait()
    finally:
        server.stop()
        thread.join(GRACE_S)
        relay.stop()
        shop.relay_template().close(1.0)
        shop.databases().close()
    if failures:
        raise failures[0]
    log.info("stopped")


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
        hard_end = threading.Timer(GRACE_S, os._exit, args=(4,))
        hard_end.daemon = True
        hard_end.start()

    threading.Thread(target=watch, name="owner", daemon=True).start()
