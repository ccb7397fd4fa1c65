import mailbox
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shop.email.listeners import Email
from shop.email.maildir import create
from shop.email.mailer import MailDeferred, Mailer, MailRefused, MailServerUnavailable
from shop.email.message import compose, message_id, subject
from shop.email.server import MailOnDisk, MailServer, MailServerError, mails
from shop.kafka.correlation import MAX_LENGTH
from shop.kafka.errors import PermanentFailure, Unavailable
from shop.kafka.wire import Message

SENDER = "shop@example.com"
ANYTHING = st.text(st.characters(codec="utf-8") | st.sampled_from("\r\n\0 =?\t"), max_size=300)
EVEN_SURROGATES = st.text(st.characters(), max_size=100)
READY: dict[str, str] = {
    "": "220 ready",
    "EHLO": "250 ok",
    "MAIL": "250 ok",
    "RCPT": "250 ok",
    "DATA": "354 go",
}
READY |= {".": "250 kept", "RSET": "250 ok", "QUIT": "221 bye"}
HANG, CLOSE = "hang", "close"


class ScriptedServer:
    """A real socket server that answers each command as told. A reply can be HANG or CLOSE, or a
    list: one for each time the command comes, over all connections, the last one for ever."""

    def __init__(self, **replies: str | list[str]) -> None:
        self._replies: dict[str, str | list[str]] = dict(READY)
        for command, reply in replies.items():
            self._replies[{"banner": "", "end": "."}.get(command, command)] = reply
        self._times: dict[str, int] = {}
        self.seen: list[str] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            with suppress(OSError):
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        with connection.makefile("rb") as lines:
            command = ""
            while True:
                reply = self._reply(command)
                if reply == HANG:
                    return
                if reply == CLOSE:
                    connection.shutdown(socket.SHUT_RDWR)
                    return
                connection.sendall(f"{reply}\r\n".encode())
                in_data = command == "DATA" and reply.startswith("354")
                line = lines.readline()
                while in_data and line not in (b".\r\n", b""):
                    line = lines.readline()
                if not line:
                    return
                self.seen.append(line.decode().strip())
                command = line.decode().split()[0].upper()

    def _reply(self, command: str) -> str:
        reply = self._replies.get(command, "500 what")
        if isinstance(reply, str):
            return reply
        number = self._times.get(command, 0)
        self._times[command] = number + 1
        return reply[min(number, len(reply) - 1)]


class Harness:
    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack = stack
        self.directory = directory

    def server(self, port: int = 0) -> MailServer:
        server = MailServer(self.directory, port=port)
        server.start()
        self._stack.callback(server.stop)
        return server

    def scripted(self, **replies: str | list[str]) -> ScriptedServer:
        server = ScriptedServer(**replies)
        self._stack.callback(server.stop)
        return server

    def mailer(self, port: int, **options: object) -> Mailer:
        mailer = Mailer("127.0.0.1", port, SENDER, **{"timeout": 5.0} | options)  # type: ignore[arg-type]
        self._stack.callback(mailer.close)
        return mailer


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Harness]:
    with ExitStack() as stack:
        yield Harness(stack, tmp_path / "mail")


Post = Callable[[str, str, str], MailOnDisk]


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Post]:
    """Sends a mail through a real server and takes it from the disk."""
    with ExitStack() as stack:
        there = Harness(stack, tmp_path_factory.mktemp("mail"))
        mailer = there.mailer(there.server().port)

        def sent(text: str, event_id: str, correlation_id: str) -> MailOnDisk:
            mailer.send("ana@example.com", text, event_id, correlation_id)
            (mail,) = mails(there.directory)
            mail.path.unlink()
            return mail

        yield sent


def send(mailer: Mailer, event_id: str = "e-1", to: str | None = "ana@example.com") -> None:
    mailer.send(to, "Thank you!", event_id, "Shop(1)")


# --- a mail's way ------------------------------------------------------------------------------


def test_a_mail_that_was_sent_is_a_file(here: Harness) -> None:
    mailer = here.mailer(here.server().port)
    mailer.send("ana@example.com", "Thank you! We are on it.\n.\nBye", "e-1", "Shop(1)-_T(2)")
    (mail,) = mails(here.directory)
    assert mail.path.parent == here.directory / "new"
    assert mail.message_id == "<e-1@example.com>"
    assert (mail.to, mail.correlation_id) == ("ana@example.com", "Shop(1)-_T(2)")
    assert (mail.subject, mail.text) == ("Thank you!", "Thank you! We are on it.\n.\nBye")


def test_mails_are_listed_in_the_order_they_came(here: Harness) -> None:
    mailer = here.mailer(here.server().port)
    for number in range(20):
        send(mailer, f"e-{number}")
    expected = [f"<e-{number}@example.com>" for number in range(20)]
    assert [mail.message_id for mail in mails(here.directory)] == expected


def send_all(mailer: Mailer, event_ids: list[str]) -> None:
    for event_id in event_ids:
        send(mailer, event_id)


def test_threads_send_at_once_each_over_one_connection(here: Harness) -> None:
    server = here.server()
    mailer = here.mailer(server.port)
    ids = [[f"{thread}-{number}" for number in range(20)] for thread in range(5)]
    threads = [threading.Thread(target=send_all, args=(mailer, mine)) for mine in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = sorted(mail.message_id for mail in mails(here.directory))
    assert found == sorted(f"<{i}@example.com>" for mine in ids for i in mine)
    assert len(server._sessions) == 5


def test_the_connections_of_threads_that_are_gone_are_closed(here: Harness) -> None:
    mailer = here.mailer(here.server().port)
    for number in range(3):
        thread = threading.Thread(target=send, args=(mailer, f"e-{number}"))
        thread.start()
        thread.join()
    assert len(mailer._connections) == 1


def test_a_server_that_was_started_again_is_found_without_an_error(here: Harness) -> None:
    first = here.server()
    mailer = here.mailer(first.port)
    send(mailer, "before")
    first.stop()
    here.server(first.port)
    send(mailer, "after")
    assert len(list(mails(here.directory))) == 2


def test_while_the_server_is_away_it_is_unavailable_and_then_mail_goes_on(here: Harness) -> None:
    server = here.server()
    mailer = here.mailer(server.port)
    send(mailer, "before")
    server.stop()
    with pytest.raises(
        MailServerUnavailable, match=rf"127.0.0.1:{server.port}: Connection refused"
    ):
        send(mailer, "after")
    server.start()
    send(mailer, "after")
    assert len(list(mails(here.directory))) == 2


def test_a_closed_mailer_connects_again(here: Harness) -> None:
    server = here.scripted()
    mailer = here.mailer(server.port)
    send(mailer)
    mailer.close()
    send(mailer)
    assert server.connections == 2
    assert server.seen.count("quit") == 1


def test_an_address_beyond_ascii_gets_its_mail(here: Harness) -> None:
    mailer = here.mailer(here.server().port)
    send(mailer, to="joão@exämple.com")
    send(mailer, to="ana@example.com")
    assert [mail.to for mail in mails(here.directory)] == ["joão@exämple.com", "ana@example.com"]


@pytest.mark.parametrize("text", ["", "a\0b", "lone \ud800 surrogate", "x" * 100_000, "é" * 999])
def test_any_text_is_sent(here: Harness, text: str) -> None:
    here.mailer(here.server().port).send("ana@example.com", text, "e-1", "Shop(1)")
    (mail,) = mails(here.directory)
    assert mail.text == text.replace("\ud800", "\ufffd")


# --- what is refused, and what is unavailable --------------------------------------------------


@pytest.mark.parametrize(
    "recipient",
    [None, "", "ana", "@", "ana@", "@example.com", "a b@example.com", "ana@example.com\r\nBcc: x@y",
     "ana@example.com\n", "<ana@example.com>", "ana@b@c", "ana@x,bia@y", "a\0@x", "a\ud800@x",
     "a" * 65 + "@x", "a@" + "x" * 300, ".a@x", "a..b@x"],
)  # fmt: skip
def test_what_is_no_address_is_refused_before_any_server_is_asked(recipient: str | None) -> None:
    with pytest.raises(MailRefused) as caught:
        send(Mailer("127.0.0.1", 1, SENDER), to=recipient)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "replies",
    [{"RCPT": "550 no such user"}, {"DATA": "554 no"}, {"end": "554 spam"}, {"MAIL": "552 big"}],
)
def test_a_mail_that_the_server_refuses_for_good_is_refused(
    here: Harness, replies: dict[str, str]
) -> None:
    server = here.scripted(**{command: [reply, READY[command.replace("end", ".")]]
                              for command, reply in replies.items()})  # fmt: skip
    mailer = here.mailer(server.port)
    with pytest.raises(
        MailRefused, match=f"refused the mail to a…@.*{next(iter(replies.values()))}"
    ):
        send(mailer)
    send(mailer, to="bia@example.com")
    assert server.connections == 1


@pytest.mark.parametrize(
    ("replies", "why"),
    [
        ({"banner": CLOSE}, "closed"),
        ({"banner": "554 not today"}, "554 not today"),
        ({"banner": HANG}, "timed out"),
        ({"banner": "hello"}, "answered -1"),
        ({"EHLO": CLOSE}, "closed"),
        ({"MAIL": "451 later"}, "451 later"),
        ({"MAIL": "550 who are you"}, "550 who are you"),
        ({"MAIL": HANG}, "timed out"),
        ({"RCPT": "452 disk full"}, "452 disk full"),
        ({"RCPT": "530 log in first"}, "530 log in first"),
        ({"RCPT": CLOSE}, "closed"),
        ({"DATA": "421 shutting down"}, "421 shutting down"),
        ({"DATA": "nonsense\x1b[2J"}, r"ense \[2J"),
        ({"end": "452 disk full"}, "452 disk full"),
        ({"end": CLOSE}, "closed"),
        ({"end": HANG}, "timed out"),
    ],
)
def test_a_server_in_trouble_is_unavailable_and_named_in_one_line(
    here: Harness, replies: dict[str, str], why: str
) -> None:
    port = here.scripted(**replies).port
    with pytest.raises(MailServerUnavailable, match=rf"\Amail server 127.0.0.1:{port}: .*{why}"):
        send(here.mailer(port, timeout=0.15))


@pytest.mark.parametrize("replies", [{"RCPT": "450 greylisted"}, {"end": "451 ask me later"}])
def test_a_mail_that_is_put_off_is_not_the_servers_trouble(
    here: Harness, replies: dict[str, str]
) -> None:
    mailer = here.mailer(here.scripted(**replies).port)
    with pytest.raises(MailDeferred, match=r"put off the mail to a…@example\.com: 45"):
        send(mailer)


@pytest.mark.parametrize("farewell", [CLOSE, "421 idle for too long"])
def test_a_kept_connection_that_is_dead_is_replaced_silently(here: Harness, farewell: str) -> None:
    server = here.scripted(MAIL=["250 ok", farewell, "250 ok"])
    mailer = here.mailer(server.port)
    send(mailer)
    send(mailer)
    assert server.connections == 2


def test_after_the_text_was_sent_nothing_is_repeated_silently(here: Harness) -> None:
    server = here.scripted(end=["250 kept", CLOSE, "250 kept"])
    mailer = here.mailer(server.port)
    send(mailer)
    with pytest.raises(MailServerUnavailable):
        send(mailer)
    assert server.connections == 1


def test_a_refused_login_is_the_servers_trouble_and_tells_no_password(here: Harness) -> None:
    server = here.scripted(EHLO="250-hello\r\n250 AUTH PLAIN", AUTH="535 no: c2VjcmV0 secret")
    mailer = here.mailer(server.port, username="shop", password="secret")
    with pytest.raises(MailServerUnavailable, match="login failed") as caught:
        send(mailer)
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(mailer)


def test_no_mail_and_no_password_goes_in_the_clear_when_starttls_is_asked(here: Harness) -> None:
    server = here.scripted(EHLO="250-hello\r\n250 AUTH PLAIN")
    mailer = here.mailer(server.port, username="shop", password="secret", starttls=True)
    with pytest.raises(MailServerUnavailable, match="STARTTLS"):
        send(mailer)
    assert [line.split()[0] for line in server.seen] == ["ehlo"]


def test_an_address_beyond_ascii_is_refused_when_the_server_cannot(here: Harness) -> None:
    mailer = here.mailer(here.scripted().port)
    with pytest.raises(MailRefused, match="SMTPUTF8"):
        send(mailer, to="joão@example.com")


@pytest.mark.parametrize(
    "options",
    [{"host": ""}, {"sender": "Shop"}, {"sender": "a@b\r\nX: y"}, {"sender": "ü@example.com"},
     {"password": "gehëim"}],
)  # fmt: skip
def test_a_wrong_option_fails_at_once_and_without_the_password(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\A(?!.*heim).+\Z"):
        Mailer(**{"host": "localhost", "port": 25, "sender": SENDER} | options)  # type: ignore[arg-type]


# --- headers made from strangers' strings ------------------------------------------------------


@given(event_id=EVEN_SURROGATES, correlation_id=EVEN_SURROGATES, text=EVEN_SURROGATES)
def test_a_stranger_s_strings_make_no_headers_of_their_own(
    event_id: str, correlation_id: str, text: str
) -> None:
    data = compose(SENDER, "ana@example.com", text, event_id, correlation_id)
    head, _, body = data.partition(b"\r\n\r\n")
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if not line.startswith(b" ")]
    assert names == [
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Auto-Submitted", b"X-Correlation-Id",
        b"MIME-Version", b"Content-Type", b"Content-Transfer-Encoding",
    ]  # fmt: skip
    assert all(len(line) <= 998 for line in data.split(b"\r\n"))
    assert head.isascii()
    for part in (head, body):
        assert b"\0" not in part
        assert part.count(b"\r") == part.count(b"\n") == part.count(b"\r\n")
    assert not message_from_bytes(data, policy=policy.default).defects


@given(correlation_id=ANYTHING | ANYTHING.map(lambda text: (text * 99)[:MAX_LENGTH]), text=ANYTHING)
@settings(max_examples=60, deadline=None)
def test_correlation_ids_and_texts_arrive_as_they_were(
    post: Post, correlation_id: str, text: str
) -> None:
    mail = post(text, "e-1", correlation_id)
    assert mail.correlation_id == correlation_id
    assert mail.text == text.replace("\r\n", "\n").replace("\r", "\n")


def test_a_correlation_id_of_any_length_is_bounded() -> None:
    data = compose(SENDER, "ana@example.com", "", "e-1", "x" * 1_000_000)
    assert len(data) < 10_000


@given(event_id=EVEN_SURROGATES)
def test_a_message_id_is_valid_whatever_the_event_id(event_id: str) -> None:
    header = message_id(event_id, SENDER)
    local, _, domain = header[1:-1].rpartition("@")
    assert header == f"<{local}@{domain}>"
    assert domain == "example.com"
    assert len(local) <= 71
    assert set(local) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


@given(EVEN_SURROGATES, EVEN_SURROGATES)
def test_message_ids_are_equal_exactly_when_the_event_ids_are(one: str, other: str) -> None:
    assert (message_id(one, SENDER) == message_id(other, SENDER)) == (one == other)
    encoded = message_id(one, SENDER)[1:].partition("@")[0]
    assert encoded == one or message_id(encoded, SENDER) != message_id(one, SENDER)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Thank you! We are on it.", "Thank you!"), ("", "Your order"), ("\r\n \0", "Your order"),
     ("Line\nX: y", "Line"), ("w" * 99, "w" * 69 + "…"), ("R$ 9.90 for you", "R$ 9.90 for you")],
)  # fmt: skip
def test_the_subject_is_the_first_sentence(text: str, expected: str) -> None:
    assert subject(text) == expected


# --- the server ---------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_an_error_of_one_line(here: Harness) -> None:
    port = here.server().port
    with pytest.raises(MailServerError, match=rf"\A.*127.0.0.1:{port}.*in use\Z"):
        MailServer(here.directory, port=port).start()


def test_a_directory_that_cannot_be_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text("a file")
    with pytest.raises(MailServerError, match=r"\Ano mail can be kept in .*\Z"):
        MailServer(tmp_path / "mail").start()


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "example.com"])
def test_it_serves_this_machine_only(tmp_path: Path, host: str) -> None:
    with pytest.raises(MailServerError, match="this machine only"):
        MailServer(tmp_path, host)


def test_it_can_be_stopped_twice_and_started_again(here: Harness) -> None:
    server = here.server()
    port = server.port
    server.stop()
    server.stop()
    server.start()
    assert server.port == port
    with pytest.raises(MailServerError, match="runs already"):
        server.start()


def test_a_mail_that_is_too_large_is_refused(here: Harness) -> None:
    mailer = here.mailer(here.server().port)
    with pytest.raises(MailRefused, match="552"):
        mailer.send("ana@example.com", "x" * 11_000_000, "e-1", "Shop(1)")
    send(mailer)


def test_a_mail_that_cannot_be_kept_is_not_taken(here: Harness) -> None:
    mailer = here.mailer(here.server().port)
    new = here.directory / "new"
    new.rmdir()
    with pytest.raises(MailServerUnavailable, match=r"452 .*No such file"):
        send(mailer)
    assert list((here.directory / "tmp").iterdir()) == []
    new.mkdir()
    send(mailer)
    assert len(list(mails(here.directory))) == 1


def test_processes_deliver_into_one_directory(tmp_path: Path) -> None:
    create(tmp_path)
    script = "import sys, pathlib; from shop.email.maildir import deliver\n"
    script += "for _ in range(50): deliver(pathlib.Path(sys.argv[1]), b'To: ana\\n\\n')"
    processes = [subprocess.Popen([sys.executable, "-c", script, tmp_path]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(list(mails(tmp_path))) == 100


def test_other_programs_can_read_the_maildir(here: Harness) -> None:
    send(here.mailer(here.server().port))
    (message,) = mailbox.Maildir(here.directory)
    assert message["Message-ID"] == "<e-1@example.com>"


def test_no_directory_is_no_mail(tmp_path: Path) -> None:
    assert list(mails(tmp_path / "none")) == []


def test_somebody_else_s_mails_are_read_as_well_as_they_can_be(tmp_path: Path) -> None:
    create(tmp_path)
    alternative = (
        b"Subject: =?nonsense?b?w6k=?=\nContent-Type: multipart/alternative; boundary=b\n\n"
        b"--b\nContent-Type: text/html\n\n<p>\n--b\nContent-Type: text/plain; charset=what\n\n"
        b"plain\n--b--\n"
    )
    for number, content in enumerate([alternative, b"", b"\xff\xfe\0", b"To: \xff\n\n\xff"]):
        (tmp_path / ("cur" if number % 2 else "new") / str(number)).write_bytes(content)
    first, empty, _, odd = mails(tmp_path)
    assert (first.subject, first.text) == ("=?nonsense?b?w6k=?=", "plain")
    assert (empty.message_id, empty.to, empty.text) == ("", "", "")
    assert (odd.to, odd.text) == ("\ufffd", "\ufffd")


def test_the_smtp_library_is_loaded_only_by_a_server_that_starts() -> None:
    script = "import sys, shop.email.server; sys.exit('aiosmtpd' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# --- the listener -------------------------------------------------------------------------------


def listen(email: Email, key: str | None = "ana@example.com") -> None:
    message = Message(
        event="Thank you!",
        key=key,
        topic="ECOMMERCE_SEND_EMAIL",
        partition=0,
        offset=7,
        timestamp=-1,
        event_id="e-1",
        correlation_id="Shop(1)",
        traceparent=None,
        headers=[],
    )
    email.send(message)


def test_a_mail_is_sent_to_the_key_under_the_id_of_its_event(here: Harness) -> None:
    listen(Email(here.mailer(here.server().port)))
    (mail,) = mails(here.directory)
    assert (mail.to, mail.text.strip()) == ("ana@example.com", "Thank you!")
    assert "e-1" in mail.message_id


def test_a_server_that_is_away_is_no_fault_of_the_mail_and_a_refusal_is(here: Harness) -> None:
    server = here.scripted(MAIL=["451 later", "250 ok"], RCPT=["450 full", "550 never"])
    email = Email(here.mailer(server.port))
    with pytest.raises(Unavailable, match=f"127.0.0.1:{server.port}"):
        listen(email)
    with pytest.raises(MailDeferred, match=r"put off the mail to a…@example.com: 450 full"):
        listen(email)
    with pytest.raises(PermanentFailure, match="no recipient"):
        listen(email, key=None)
    with pytest.raises(PermanentFailure, match="never"):
        listen(email)
