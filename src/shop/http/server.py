"""Runs an application on uvicorn until it is told to stop."""

import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from litestar import Litestar

from shop.http.app import stop_waiting

log = logging.getLogger(__name__)

GRACE_S = 3  # running requests get this long when the server stops
IDLE_S = 75  # a kept-alive connection may be silent for this long
BACKLOG = 2048


class HttpError(Exception):
    """The server cannot listen where it should. One line."""


class HttpServer:
    """`run()` blocks until `stop()`, which any thread may call. In the main thread SIGINT and
    SIGTERM stop it too, and nothing of them is left to whoever called run().

    The port is taken when this is built: raises HttpError. Port 0 is any free one, then `port`
    says which."""

    def __init__(self, app: Litestar, host: str = "127.0.0.1", port: int = 8080) -> None:
        self._socket = _listen(host, port)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            http="httptools",
            loop="uvloop",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            log_level="warning",
            backlog=BACKLOG,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=GRACE_S,
            server_header=False,
            proxy_headers=False,
        )
        self._server = _Server(config, app)

    def run(self, started: Callable[[], None] | None = None) -> None:
        """`started` is called when requests are answered."""
        self._server.when_started = started
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        self._server.should_exit = True


def serve(
    app: Litestar,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    started: Callable[[], None] | None = None,
) -> None:
    """Serve from the main thread until SIGINT or SIGTERM. Raises HttpError."""
    HttpServer(app, host, port).run(started)


class _Server(uvicorn.Server):
    when_started: Callable[[], None] | None = None

    def __init__(self, config: uvicorn.Config, app: Litestar) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is there now stays: the collector need not walk it again while requests wait.
        gc.collect()
        gc.freeze()
        if self.when_started is not None:
            self.when_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        stop_waiting(self._app)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's, does not raise the signal again at the end: the caller goes on."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, _: FrameType | None) -> None:
            self.force_exit = self.should_exit and number == signal.SIGINT
            self.should_exit = True

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise HttpError(
            f"cannot serve on {host} port {port}: {error.strerror or error}; "
            "choose another with SHOP_HTTP__HOST and SHOP_HTTP__PORT"
        ) from None
    listening.set_inheritable(False)
    return listening
