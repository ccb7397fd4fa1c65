"""Sending mail by SMTP, over connections that are kept between mails."""

import smtplib
import socket
import ssl
import threading
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TypeAlias

from opentelemetry import trace
from opentelemetry.util.types import AttributeValue

from shop.email.message import compose, is_address
from shop.kafka.errors import PermanentFailure, Unavailable
from shop.printable import shortened

Answer: TypeAlias = tuple[int, bytes | str]

_WHOLE_SERVER = (421, 452)  # RFC 5321: it closes, it has no room; the mail is not at fault
_LOGIN_WANTED = (530, 534, 535, 538)  # RFC 4954: our login is at fault, not the mail


class MailRefused(PermanentFailure):
    """This mail can never be sent; trying again cannot help."""


class MailDeferred(Exception):
    """The server takes this mail not now, and others: its mailbox is full, or it greylists."""


class MailServerUnavailable(Unavailable):
    """The mail server cannot be reached or takes no mail now; it is no mail's fault."""


class Mailer:
    """Thread-safe: each thread that sends has a connection of its own, opened when first needed.

    With `starttls` the server's certificate is verified, and nothing goes in the clear. `timeout`,
    in seconds, is for each step of the dialogue. Raises ValueError for a wrong option.
    """

    def __init__(
        self,
        host: str,
        port: int,
        sender: str,
        *,
        username: str = "",
        password: str = "",
        starttls: bool = False,
        timeout: float = 10.0,
    ) -> None:
        if not host:
            raise ValueError("the mail server's host is empty")
        if not (is_address(sender) and sender.isascii()):
            raise ValueError(f"the sender {sender!r} is not a plain address like shop@example.com")
        if not (username.isascii() and password.isascii()):
            raise ValueError("the mail server's user name and password can have ASCII only")
        self._host, self._port, self._sender = host, port, sender
        self._username, self._password = username, password
        self._tls = ssl.create_default_context() if starttls else None
        self._timeout = timeout
        name = socket.gethostname()  # not getfqdn, which smtplib takes and which may ask the DNS
        self._own_name = name if "." in name else "[127.0.0.1]"
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, smtplib.SMTP] = {}

    def send(self, recipient: str | None, text: str, event_id: str, correlation_id: str) -> None:
        """Returns when the server has taken the mail.

        Raises MailRefused, MailDeferred or MailServerUnavailable. After the last one the server
        may have the mail all the same: send it again, its Message-ID is always the same.
        """
        if recipient is None:
            raise MailRefused("the mail has no recipient: its record has no key")
        if not is_address(recipient):
            shown = shortened(recipient[:254].encode("utf-8", "backslashreplace"))
            raise MailRefused(f"{shown} is not an e-mail address")
        data = compose(self._sender, recipient, text, event_id, correlation_id)
        try:
            with self._traced():
                self._transfer(recipient, data)
        except (OSError, ValueError) as error:  # smtplib's own errors are OSErrors
            self._disconnect()
            where = f"{self._host}:{self._port}"
            raise MailServerUnavailable(f"mail server {where}: {_one_line(error)}") from None
        except (MailRefused, MailDeferred):
            raise
        except BaseException:
            self._disconnect()  # an answer may be on its way that is not for the next mail
            raise

    def close(self) -> None:
        """Say goodbye on all connections; for when no thread is sending. A later mail connects
        again."""
        with self._lock:
            connections = list(self._connections.values())
            self._connections.clear()
        for smtp in connections:
            with suppress(OSError):
                if smtp.sock is not None:
                    smtp.sock.settimeout(min(self._timeout, 1.0))
                    smtp.quit()
            smtp.close()

    def _traced(self) -> AbstractContextManager[object]:
        """The span of the dialogue with the server, where the one around it is recorded."""
        if not trace.get_current_span().is_recording():
            return nullcontext()
        attributes: dict[str, AttributeValue] = {
            "network.protocol.name": "smtp",
            "server.address": self._host,
            "server.port": self._port,
        }
        return trace.get_tracer("shop.email").start_as_current_span(
            "deliver mail", kind=trace.SpanKind.CLIENT, attributes=attributes
        )

    def _transfer(self, recipient: str, data: bytes) -> None:
        smtp, answer = self._begin(recipient, len(data))
        # A sender that is refused is a wrong setting, unless it is for the size (RFC 1870).
        if answer[0] != 250:
            self._refused(smtp, recipient, answer, permanent=answer[0] == 552)
        answer = smtp.rcpt(recipient)
        if answer[0] not in (250, 251):
            self._refused(smtp, recipient, answer)
        try:
            answer = smtp.data(data)
        except smtplib.SMTPDataError as error:
            answer = error.smtp_code, error.smtp_error
        if answer[0] != 250:
            self._refused(smtp, recipient, answer)

    def _begin(self, recipient: str, size: int) -> tuple[smtplib.SMTP, Answer]:
        """A connection with the answer to MAIL. The server may have closed the kept one since;
        nothing of this mail was sent then, so a new one is tried at once."""
        kept = self._connections.get(threading.current_thread())
        if kept is not None and kept.sock is not None:
            with suppress(smtplib.SMTPServerDisconnected):
                answer = self._mail(kept, recipient, size)
                if answer[0] != 421:
                    return kept, answer
            kept.close()
        smtp = self._connect()
        return smtp, self._mail(smtp, recipient, size)

    def _mail(self, smtp: smtplib.SMTP, recipient: str, size: int) -> Answer:
        options = [f"size={size}"] if smtp.has_extn("size") else []
        if not recipient.isascii():
            if not smtp.has_extn("smtputf8"):
                raise MailRefused(
                    f"the mail to {shortened(recipient.encode())} needs SMTPUTF8, which the mail "
                    f"server {self._host}:{self._port} does not offer",
                )
            options += ["SMTPUTF8", "BODY=8BITMIME"]
        return smtp.mail(self._sender, options)

    def _connect(self) -> smtplib.SMTP:
        smtp = smtplib.SMTP(self._host, self._port, self._own_name, self._timeout)
        try:
            self._greet(smtp)
        except BaseException:
            smtp.close()
            raise
        with self._lock:
            for thread in [t for t in self._connections if not t.is_alive()]:
                self._connections.pop(thread).close()
            self._connections[threading.current_thread()] = smtp
        return smtp

    def _greet(self, smtp: smtplib.SMTP) -> None:
        smtp.ehlo_or_helo_if_needed()
        if self._tls is not None:
            smtp.starttls(context=self._tls)
            smtp.ehlo_or_helo_if_needed()
        if self._username:
            try:
                smtp.login(self._username, self._password)
            except (OSError, ValueError) as error:
                # Not the server's words, which may repeat what they answer.
                why = getattr(error, "smtp_code", None) or type(error).__name__
                raise smtplib.SMTPException(f"login failed ({why})") from None

    def _disconnect(self) -> None:
        smtp = self._connections.get(threading.current_thread())
        if smtp is not None:
            smtp.close()

    def _refused(self, smtp: smtplib.SMTP, to: str, answer: Answer, permanent: bool = True) -> None:
        code, reply = answer
        deferred = permanent and 400 <= code <= 499 and code not in _WHOLE_SERVER
        refused = permanent and 500 <= code <= 599 and code not in _LOGIN_WANTED
        if not (deferred or refused):
            raise smtplib.SMTPResponseException(code, reply)
        with suppress(OSError):
            smtp.rset()
        kind, did = (MailDeferred, "put off") if deferred else (MailRefused, "refused")
        where, whom = f"mail server {self._host}:{self._port}", shortened(to.encode())
        raise kind(f"{where} {did} the mail to {whom}: {_said(*answer)}")


def _one_line(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return f"it answered {_said(error.smtp_code, error.smtp_error)}"
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split())


def _said(code: int, reply: bytes | str) -> str:
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(f"{code} {printable}".split())[:200]
