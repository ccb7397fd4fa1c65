"""One order is one trace: from the HTTP request through outbox, topics, listeners to the mail."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shop.broker import free_port
from shop.containers import Shop
from shop.email.maildir import mails
from shop.kafka.connection import Connection
from shop.runtime import run_api, run_listeners
from shop.settings import Http, Kafka, Settings
from shop.topics import NEW_ORDER, ORDER_REJECTED, SEND_EMAIL
from tests.backends import Backend
from tests.commands import ShopPlace
from tests.spans import kept_spans
from tests.waiting import eventually

# Of an order that is mailed: request, transaction, three sends, ten listeners, delivery.
SPANS = 16


@pytest.fixture(scope="module")
def spans() -> Iterator[InMemorySpanExporter]:
    with kept_spans() as exporter:
        yield exporter


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """A broker of its own: other tests run the shop's groups too."""
    place = ShopPlace(tmp_path_factory.mktemp("tracing"))
    yield place.kafka
    place.close()


@contextmanager
def in_thread(run: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            run(stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        assert failures == []


@pytest.fixture
def api(
    kafka: Connection, backend: Backend, tmp_path: Path, spans: InMemorySpanExporter
) -> Iterator[httpx.Client]:
    """The API and all listeners, each with a container of its own, as two processes have."""
    settings = Settings(
        data_dir=tmp_path,
        http=Http(port=free_port()),
        kafka=Kafka(bootstrap_servers=kafka.bootstrap_servers),
    )
    listeners, server = Shop(settings=settings), Shop(settings=settings)
    groups = listeners.registry().groups
    with (
        in_thread(lambda stop: run_listeners(listeners, groups, instance=None, stop=stop)),
        in_thread(lambda stop: run_api(server, stop=stop)),
        httpx.Client(base_url=f"http://127.0.0.1:{settings.http.port}", timeout=60) as client,
    ):
        eventually(lambda: answers(client), "the API")
        spans.clear()
        yield client


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health/live").is_success
    except httpx.TransportError:
        return False


def place(api: httpx.Client, tmp_path: Path, **headers: str) -> httpx.Response:
    """An order of 5000, decided and mailed."""
    before = len(list(mails(tmp_path / "mail")))
    answer = api.post("/orders", json={"email": "ana@example.com", "amount": 5000}, headers=headers)
    assert answer.status_code == 202
    decided = api.get(answer.headers["Location"], params={"wait": 30}).json()
    assert decided["status"] == "rejected"
    eventually(lambda: len(list(mails(tmp_path / "mail"))) > before, "the mail")
    return answer


def tree(spans: list[ReadableSpan]) -> dict[str, list[str]]:
    """Span name (with the group of a process span) -> its children's, sorted."""

    def name(span: ReadableSpan) -> str:
        group = (span.attributes or {}).get("messaging.consumer.group.name")
        return f"{span.name} ({group})" if group else span.name

    names = {span.context.span_id: name(span) for span in spans}
    children = defaultdict(list)
    for span in spans:
        parent = names.get(span.parent.span_id, "outside") if span.parent else "nothing"
        children[parent].append(name(span))
    return {parent: sorted(found) for parent, found in children.items()}


def of_trace(spans: InMemorySpanExporter, trace_id: int) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.context.trace_id == trace_id]


def test_one_order_is_one_trace(
    api: httpx.Client, spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    answer = place(api, tmp_path)
    (root,) = [s for s in spans.get_finished_spans() if s.name == "POST /orders"]
    found = eventually(
        lambda: (all_ := of_trace(spans, root.context.trace_id)) and len(all_) == SPANS and all_,
        f"{SPANS} spans",
    )
    new, rejected, email = NEW_ORDER.name, ORDER_REJECTED.name, SEND_EMAIL.name
    assert tree(found) == {
        "nothing": ["POST /orders"],
        "POST /orders": [f"send {new}", "transaction orders"],
        f"send {new}": [
            f"process {new} ({group})"
            for group in ("email-new-order", "fraud", "log", "reports-orders", "users")
        ],
        f"process {new} (fraud)": [f"send {rejected}"],
        f"send {rejected}": [
            f"process {rejected} ({group})" for group in ("log", "orders", "reports-orders")
        ],
        f"process {new} (email-new-order)": [f"send {email}"],
        f"send {email}": [f"process {email} ({group})" for group in ("email", "log")],
        f"process {email} (email)": ["deliver mail"],
    }
    correlation_id = answer.headers["X-Correlation-Id"]
    for span in found:
        attributes: Any = span.attributes
        if span.name not in ("POST /orders", "transaction orders", "deliver mail"):
            assert attributes["messaging.system"] == "kafka"
            assert attributes["messaging.message.conversation_id"].startswith(correlation_id)
    (fraud,) = [s for s in found if "fraud" in (s.attributes or {}).values()]
    assert (fraud.attributes or {})["messaging.destination.name"] == new
    assert (fraud.attributes or {})["messaging.kafka.message.key"] == "ana@example.com"


def test_a_callers_trace_goes_on(
    api: httpx.Client, spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    place(api, tmp_path, traceparent=f"00-{trace_id}-b7ad6b7169203331-01")
    found = eventually(
        lambda: (all_ := of_trace(spans, int(trace_id, 16))) and len(all_) == SPANS and all_,
        f"{SPANS} spans",
    )
    assert tree(found)["outside"] == ["POST /orders"]


def test_what_is_not_sampled_leaves_no_span_and_is_passed_on(
    kafka: Connection, api: httpx.Client, spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    traceparent = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    order_id = place(api, tmp_path, traceparent=traceparent).json()["id"]
    reader = kafka.reader()
    reader.subscribe([ORDER_REJECTED.name])
    headers: dict[str, bytes] = {}
    while not headers:
        for record in reader.consume(100, 1.0):
            if ORDER_REJECTED.codec.decode(record.value())[0].order_id == order_id:
                headers = dict(record.headers())
    reader.close()
    assert headers["traceparent"].decode()[:35] == traceparent[:35]
    assert headers["traceparent"].endswith(b"-00")
    assert of_trace(spans, int("1af7651916cd43dd8448eb211c80319c", 16)) == []
