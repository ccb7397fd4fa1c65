"""An order and all that comes of it is one trace, asked of a real Jaeger: across processes, over
the outbox, through retries, dead letters, redrives and the death of a process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from shop.broker import free_port
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.outbound import OutboundRecord, outbound
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from shop.kafka.tracing import AS_LETTER
from shop.kafka.wire import EVENT_ID, TRACEPARENT
from shop.topics import DEADLETTER, NEW_ORDER, ORDER_REJECTED, SEND_EMAIL
from tests.backends import Backend
from tests.commands import ShopPlace
from tests.faults.crashing import TEXT
from tests.jaeger import Jaeger, Span, drawn, jaeger, roots
from tests.reading import read_all
from tests.waiting import eventually

API, LISTENERS = "shop-api", "shop-listeners"
NEW, REJECTED, MAIL, LETTERS = NEW_ORDER.name, ORDER_REJECTED.name, SEND_EMAIL.name, DEADLETTER.name
NOT_NOW, NEVER = "busy@example.com", "nobody@example.com"  # recipients, at first

ORDER = f"""\
POST /orders [{API}]
  send {NEW} [{API}]
    process {NEW} (email-new-order) [{LISTENERS}]
      send {MAIL} [{LISTENERS}]
        process {MAIL} (email) [{LISTENERS}]
          deliver mail [{LISTENERS}]
        process {MAIL} (log) [{LISTENERS}]
    process {NEW} (fraud) [{LISTENERS}]
      send {REJECTED} [{LISTENERS}]
        process {REJECTED} (log) [{LISTENERS}]
        process {REJECTED} (orders) [{LISTENERS}]
        process {REJECTED} (reports-orders) [{LISTENERS}]
    process {NEW} (log) [{LISTENERS}]
    process {NEW} (reports-orders) [{LISTENERS}]
    process {NEW} (users) [{LISTENERS}]
  transaction orders [{API}]
"""


class MailServer:
    """Takes mail, but puts off the first for NOT_NOW and refuses NEVER until it is told to."""

    def __init__(self) -> None:
        self.refuses = {NEVER}
        self._asked: set[str] = set()

    async def handle_RCPT(
        self, _: SMTP, __: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refuses:
            return "550 no such mailbox"
        if address == NOT_NOW and address not in self._asked:
            self._asked.add(address)
            return "451 ask again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _: SMTP, __: Session, ___: Envelope) -> str:
        return "250 OK"


@dataclass
class Traced:
    """A shop of real processes that traces everything to Jaeger."""

    jaeger: Jaeger
    kafka: Connection
    api: httpx.Client
    mail: MailServer
    environment: dict[str, str]
    directory: Path
    stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.start("serve")
        self.listeners = self.start("listen", "--all")

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "shop.cli", *command], env=os.environ | self.environment
        )
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        return process

    def order(self, email: str) -> httpx.Response:
        answer = self.api.post("/orders", json={"email": email, "amount": 5000})
        assert answer.status_code == 202, answer.text
        return answer

    def trace_of(self, answer: httpx.Response) -> str:
        """The trace's id, once the audit log has the order."""
        path = f"{answer.headers['Location']}/timeline"
        hops = eventually(lambda: self.api.get(path).json()["hops"], "the timeline")
        return str(hops[0]["traceId"])

    def tree(self, trace_id: str, expected: str) -> list[Span]:
        """The spans of a trace, once they are these."""
        lines = expected.splitlines()
        seen: list[str] = []

        def found() -> list[Span] | None:
            nonlocal seen
            spans = self.jaeger.spans(trace_id)
            seen = drawn(roots(spans))
            return spans if seen == lines else None

        try:
            spans: list[Span] = eventually(found, "the trace")
            return spans
        except AssertionError:
            assert seen == lines
            raise


@pytest.fixture(scope="module")
def shop(shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """On a broker of its own: other tests run the shop's groups too."""
    directory = tmp_path_factory.mktemp("traced")
    place = ShopPlace(directory)
    kafka = place.kafka
    mail = MailServer()
    smtp = Controller(mail, hostname="127.0.0.1", port=free_port())
    smtp.start()
    port = free_port()
    with jaeger(directory) as server, httpx.Client(
        base_url=f"http://127.0.0.1:{port}", timeout=60
    ) as api, ExitStack() as stack:  # fmt: skip
        environment = {
            "SHOP_DATA_DIR": str(directory / "data"),
            "SHOP_HTTP__PORT": str(port),
            "SHOP_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "SHOP_KAFKA__SESSION_TIMEOUT_MS": "6000",
            "SHOP_SMTP__HOST": "127.0.0.1",
            "SHOP_SMTP__PORT": str(smtp.port),
            "OTEL_EXPORTER_OTLP_ENDPOINT": server.otlp,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        shop = Traced(server, kafka, api, mail, environment, directory, stack)
        eventually(lambda: up(api), "the API")
        yield shop
    smtp.stop()
    place.close()


def up(api: httpx.Client) -> bool:
    try:
        return api.get("/health/live").is_success
    except httpx.TransportError:
        return False


def test_an_order_is_one_trace_of_exactly_these_spans(
    shop: Traced, shared_backend: Backend
) -> None:
    answer = shop.order("ana@example.com")
    trace_id = shop.trace_of(answer)
    spans = shop.tree(trace_id, ORDER)
    order_id, correlation_id = answer.json()["id"], answer.headers["X-Correlation-Id"]

    by_title = {span.title: span for span in spans}
    request = by_title["POST /orders"]
    assert request.tags["http.route"] == "/orders"
    assert request.tags["http.response.status_code"] == 202
    assert request.tags["shop.correlation_id"] == correlation_id
    system = "postgresql" if shared_backend.postgres else "sqlite"
    assert by_title["transaction orders"].tags["db.system.name"] == system
    assert by_title["deliver mail"].tags["server.address"] == "127.0.0.1"
    for span in spans:
        tags = span.tags
        if span.name.startswith(("send ", "process ")):
            assert tags["messaging.system"] == "kafka"
            assert tags["messaging.operation.name"] == span.name.split()[0]
            assert tags["messaging.operation.type"] == span.name.split()[0]
            assert tags["messaging.destination.name"] == span.name.split()[1]
            assert tags["messaging.message.conversation_id"].startswith(correlation_id)
            assert tags["messaging.kafka.message.key"] == "ana@example.com"
            assert tags["messaging.message.id"]
            assert tags["span.kind"] == ("producer" if "send" in span.name else "consumer")
        if span.name.startswith("process"):
            assert tags["messaging.destination.partition.id"].isdigit()
            assert tags["messaging.kafka.offset"] >= 0
            assert tags["messaging.client.id"].startswith("shop-")
            assert tags["listener.outcome"] == "handled"
    told = subprocess.run(
        [sys.executable, "-m", "shop.cli", "orders", "timeline", order_id],
        env=os.environ | shop.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.splitlines()[-1] == f"trace http://127.0.0.1:16686/trace/{trace_id}"


def test_the_readme_shows_that_trace() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert ORDER in readme


def test_polls_and_commits_are_traces_of_their_own_with_links_both_ways(shop: Traced) -> None:
    spans = shop.tree(shop.trace_of(shop.order("bia@example.com")), ORDER)
    senders = {span.id: span for span in spans}
    for span in spans:
        if not span.name.startswith("process"):
            continue
        ((trace_id, poll_id),) = span.links
        batch = eventually(partial(batch_of, shop, trace_id), "the batch")
        (poll,) = [one for one in batch if one.id == poll_id]
        group = span.tags["messaging.consumer.group.name"]
        assert drawn(roots(batch)) == [
            f"{poll.name} ({group}) [{LISTENERS}]",
            f"  commit {group} [{LISTENERS}]",
        ]
        assert poll.tags["messaging.operation.type"] == "receive"
        assert poll.tags["messaging.batch.message_count"] >= 1
        assert span.parent in senders
        assert (span.trace_id, span.parent) in poll.links


def batch_of(shop: Traced, trace_id: str) -> list[Span] | None:
    spans = shop.jaeger.spans(trace_id)
    return spans if len(spans) == 2 else None


def test_a_mail_that_is_put_off_shows_each_attempt(shop: Traced) -> None:
    trace_id = shop.trace_of(shop.order(NOT_NOW))
    first = f"process {MAIL} (email) failed [{LISTENERS}]"
    spans = shop.tree(
        trace_id,
        ORDER.replace(
            f"        process {MAIL} (log)",
            f"        {first}\n          deliver mail [{LISTENERS}]\n        process {MAIL} (log)",
        ),
    )
    failed, second = sorted(
        (span for span in spans if span.name == f"process {MAIL}" and span.children[:1]),
        key=lambda span: span.started,
    )
    assert failed.tags["error"] is True
    assert failed.tags["error.type"] == "MailDeferred"
    assert "451" in failed.tags["otel.status_description"]
    assert second.tags["listener.attempt"] == 2


def test_a_dead_letter_and_its_redrive_are_in_the_trace_of_the_order(shop: Traced) -> None:
    answer = shop.order(NEVER)
    trace_id = shop.trace_of(answer)
    letter = eventually(lambda: waiting(shop), "the letter")[0]
    shop.mail.refuses.clear()
    redrive = shop.api.post(
        "/deadletters/redrive", json={"by": "ana", "ids": [letter["id"]]}
    ).json()
    mails = f"""\
        process {MAIL} (email) failed [{LISTENERS}]
          deliver mail [{LISTENERS}]
        process {MAIL} (log) [{LISTENERS}]
        send {LETTERS} [{LISTENERS}]
          process {LETTERS} (deadletter) [{LISTENERS}]
            send {MAIL} [{API}]
              process {MAIL} (email) [{LISTENERS}]
                deliver mail [{LISTENERS}]
              process {MAIL} (log) [{LISTENERS}]
          process {LETTERS} (log) [{LISTENERS}]
"""
    handled = f"""\
        process {MAIL} (email) [{LISTENERS}]
          deliver mail [{LISTENERS}]
        process {MAIL} (log) [{LISTENERS}]
"""
    spans = shop.tree(trace_id, ORDER.replace(handled, mails))
    (again,) = [s for s in spans if s.name == f"send {MAIL}" and s.service == API]
    assert again.tags["dead_letter.id"] == letter["id"]
    ((request_trace, request_id),) = again.links
    request = eventually(lambda: shop.jaeger.spans(request_trace), "the redrive's request")
    assert [s.name for s in request if s.id == request_id] == ["POST /deadletters/redrive"]
    assert redrive["letters"] == 1


def waiting(shop: Traced) -> Any:
    return shop.api.get("/deadletters", params={"state": "waiting"}).json()["letters"]


def test_what_comes_again_after_a_crash_is_in_the_same_trace_as_a_duplicate(shop: Traced) -> None:
    """A relay that dies between publishing and deleting publishes the same record again."""
    trace_id = shop.trace_of(shop.order("caio@example.com"))
    shop.tree(trace_id, ORDER)
    record = next(r for r in read_all(shop.kafka, NEW_ORDER) if r.key() == b"caio@example.com")
    with KafkaTemplate(shop.kafka) as template:
        template.send_record(
            OutboundRecord(NEW, record.key(), record.value(), record.headers() or [])
        )
    lines: list[str] = []
    repeat = ""  # of the listener whose lines come just now, to be put behind them
    for line in ORDER.splitlines():
        if repeat and not line.startswith("     "):
            lines.append(repeat)
            repeat = ""
        if line.startswith("    process"):
            repeat = line if "(log)" in line else line.replace(")", ") duplicate")
        lines.append(line)
    shop.tree(trace_id, "\n".join(lines))


def test_a_record_that_waits_while_its_listeners_are_killed_stays_in_its_trace(
    shop: Traced,
) -> None:
    listeners = shop.listeners
    os.kill(listeners.pid, signal.SIGSTOP)
    answer = shop.order("dora@example.com")
    listeners.kill()
    listeners.wait()
    shop.listeners = shop.start("listen", "--all")
    shop.tree(shop.trace_of(answer), ORDER)


@pytest.mark.parametrize(
    ("text", "step"),
    [("good", "written, not committed"), ("bad", "dead letter written, not committed")],
)
def test_what_a_kill_undoes_and_another_process_does_is_once_in_its_trace(
    shop: Traced, text: str, step: str
) -> None:
    source, target, letters = (
        Topic(f"{name}-{uuid4().hex[:8]}", TEXT, partitions=1) for name in "STL"
    )
    create_topics(shop.kafka, [source, target, letters])
    group, trace_id = f"group-{uuid4().hex[:8]}", uuid4().hex
    sent = outbound(
        source, text, text, correlation_id="Test(1)",
        headers=[(TRACEPARENT, f"00-{trace_id}-{'b' * 16}-01".encode())],
    )  # fmt: skip
    with KafkaTemplate(shop.kafka) as template:
        template.send_record(sent)

    def live(step: str, **variables: str) -> "subprocess.Popen[bytes]":
        names = (source.name, target.name, letters.name, group)
        command = [sys.executable, "-m", "tests.faults.crashing", step]
        return subprocess.Popen(
            [*command, shop.kafka.bootstrap_servers, str(shop.directory / group), *names],
            env=os.environ | shop.environment | variables,
        )

    # The spans that it ended, as of an attempt that failed, die with it.
    killed = live(step, OTEL_BSP_SCHEDULE_DELAY="3600000")
    assert killed.wait(60) == -signal.SIGKILL, "it did not come to that"
    ways = {  # a letter is sent when the last attempt is over
        "good": f"process {source} ({group}) [shop-crashing]\n  send {target} [shop-crashing]",
        "bad": f"process {source} ({group}) failed [shop-crashing]\nsend {letters} [shop-crashing]",
    }
    again = live("never")
    try:
        spans = shop.tree(trace_id, ways[text])
        came_to = target if text == "good" else letters  # a relay brings it there, later
        (record,) = eventually(lambda: read_all(shop.kafka, came_to))
    finally:
        again.kill()
        again.wait()
    handled, send = sorted(spans, key=lambda span: span.started)
    into = TRACEPARENT if text == "good" else AS_LETTER
    assert send.id in dict(record.headers())[into].decode()
    assert handled.tags["messaging.message.id"] == dict(sent.headers)[EVENT_ID].decode()
