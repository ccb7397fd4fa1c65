"""An SMTP server for one machine, which keeps each mail as a file of a Maildir.

Several servers, in several processes, can deliver into one directory.
"""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from shop.email.maildir import MailOnDisk, create, deliver, mails

if TYPE_CHECKING:
    from aiosmtpd.smtp import SMTP

__all__ = ["MailOnDisk", "MailServer", "MailServerError", "mails"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
MAX_SIZE = 10 * 1024 * 1024  # bytes of one mail


class MailServerError(Exception):
    """The server cannot start; the message is one line that says why."""


class MailServer:
    """Runs in a thread of its own. A mail that was answered with 250 is on the disk.

    `port` 0: a free one, which `port` names after the start.
    """

    def __init__(self, directory: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        if host not in LOOPBACK:  # it asks nobody for a password
            raise MailServerError(f"the embedded mail server is for this machine only, not {host}")
        self.host, self.port = host, port
        self._directory = directory
        self._thread: threading.Thread | None = None
        self._sessions: WeakSet[SMTP] = WeakSet()

    def start(self) -> None:
        """Returns when it accepts connections. Raises MailServerError."""
        from aiosmtpd.smtp import SMTP  # costs time and memory, and only this needs it

        if self._thread is not None:
            raise MailServerError(f"the embedded mail server runs already, on port {self.port}")
        logging.getLogger("mail.log").setLevel(logging.ERROR)  # several lines for each mail
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            create(self._directory)
        except OSError as error:
            raise MailServerError(f"no mail can be kept in {self._directory}: {error}") from None
        try:
            listening = socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            raise MailServerError(
                f"the embedded mail server cannot listen on {self.host}:{self.port}: "
                f"{os.strerror(error.errno or 0)}"
            ) from None
        self.port = listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        handler = _Handler(self._directory)

        def session() -> SMTP:
            smtp = SMTP(
                handler,
                data_size_limit=MAX_SIZE,
                enable_SMTPUTF8=True,
                hostname="localhost",
                ident="shop",
                loop=self._loop,
            )
            self._sessions.add(smtp)
            return smtp

        self._thread = threading.Thread(
            target=self._run, args=(listening, session), name="mail-server", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port and all connections; a mail being written is written to the end."""
        if self._thread is not None:
            with suppress(RuntimeError):  # its loop is closed already
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout=10.0)
            self._thread = None

    def _run(self, listening: socket.socket, session: "Callable[[], SMTP]") -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(listening, session))

    async def _serve(self, listening: socket.socket, session: "Callable[[], SMTP]") -> None:
        # A client that goes away during a reply is no news.
        self._loop.set_exception_handler(lambda *_: None)
        server = await self._loop.create_server(session, sock=listening)
        await self._stopping.wait()
        server.close()
        for smtp in list(self._sessions):
            if smtp.transport is not None:
                smtp.transport.close()
        await asyncio.sleep(0)


class _Handler:
    """What aiosmtpd calls."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        try:  # in a thread, so that several wait for the disk together
            await asyncio.to_thread(deliver, self._directory, envelope.content)
        except OSError as error:
            return f"452 4.3.1 the mail cannot be kept: {error.strerror}"
        return "250 2.0.0 kept"

    async def handle_exception(self, error: Exception) -> str:
        return f"451 4.3.0 {type(error).__name__}"  # aiosmtpd says 500: never try again
