"""Looking after the groups of a process: whether each is ready, and whether it gets on."""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from shop.http.metrics import Page
from shop.kafka.container import ListenerContainer
from shop.kafka.errors import KafkaError

log = logging.getLogger(__name__)

RED_S = 10.0  # liveness shows that a group stalls for so long before its process ends


class GroupDied(KafkaError):
    """A group's thread ended; its process has to."""


class Stalled(KafkaError):
    """A group does not get on, though its process lives; only another process can help."""


class Watch:
    """`stalled_after`: seconds without progress, with records waiting, that a group is allowed."""

    def __init__(self, containers: Sequence[ListenerContainer], stalled_after: float) -> None:
        self._containers = containers
        self._stalled_after = stalled_after
        self._told: dict[str, str | None] = {}
        self._red_since: float | None = None
        self.last_stalls: dict[str, str | None] = {}  # as `look` found them

    def troubles(self) -> dict[str, str | None]:
        """Why each group is not ready; None of one that is."""
        return {container.group: container.trouble for container in self._containers}

    def stalls(self) -> dict[str, str | None]:
        """Why each group counts as stalled; None of one that gets on."""
        after = self._stalled_after
        return {container.group: container.stalled(after) for container in self._containers}

    def look(self) -> None:
        """One line when groups stop being ready, by what they lack, and one when they are again.
        Raises Stalled for one that has been stalled for a while."""
        changed: dict[str | None, list[str]] = {}
        for group, trouble in self.troubles().items():
            if trouble != self._told.get(group):
                self._told[group] = trouble
                changed.setdefault(trouble, []).append(group)
        for trouble, groups in changed.items():
            if trouble:
                log.warning("not ready: %s: %s", ", ".join(groups), trouble)
            else:
                log.info("ready again: %s", ", ".join(groups))
        self.last_stalls = self.stalls()
        stalled = {group: why for group, why in self.last_stalls.items() if why}
        if not stalled:
            self._red_since = None
        elif self._red_since is None:
            self._red_since = time.monotonic()
            for group, why in stalled.items():
                log.error("group %s does not get on: %s", group, why)
        elif time.monotonic() - self._red_since > RED_S:
            group, why = next(iter(stalled.items()))
            raise Stalled(f"group {group} does not get on: {why}")


class HealthServer:
    """Answers /health/live and /health/ready of a process that has no API: 200, or 503 with what
    is wrong, by group. And /metrics, of any process. Takes its port when it is built; raises
    OSError."""

    def __init__(
        self, host: str, port: int, watch: Watch | None, metrics: Page | None = None
    ) -> None:
        paths = {}
        if watch is not None:
            paths = {"/health/live": watch.stalls, "/health/ready": watch.troubles}
        self._server = _Server((host, port), _handler(paths, metrics))
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # who asked has gone
            log.exception("a look at this process's health failed")


def _handler(
    paths: Mapping[str, Callable[[], Mapping[str, str | None]]], metrics: Page | None
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            look = paths.get(self.path)
            if metrics is not None and self.path == "/metrics":
                self._answer(200, *metrics(self.headers.get("Accept", "")))
                return
            if look is None:
                self.send_error(404)
                return
            found = look()
            bad = any(found.values())
            body = {
                "status": "unavailable" if bad else "ok",
                "checks": {name: why or "ok" for name, why in found.items()},
            }
            self._answer(503 if bad else 200, json.dumps(body).encode(), "application/json")

        def _answer(self, status: int, data: bytes, media_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Not a line per probe."""

    return Handler
