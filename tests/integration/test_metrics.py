"""What the metrics say is what happened, on a real broker and real databases."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from sqlalchemy import insert, update

from shop.broker import free_port
from shop.db.database import Database
from shop.db.store import DatabaseStore
from shop.db.tables import position
from shop.db.work import Work
from shop.events import Order
from shop.fraud.model import Decision
from shop.gauges import show_fan_outs, show_groups
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.dead_letter import DeadLetters
from shop.kafka.errors import Unavailable
from shop.kafka.letter import DeadLetterCodec
from shop.kafka.listener import listener
from shop.kafka.outbound import outbound
from shop.kafka.retry import Backoff, Retry
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from shop.kafka.wire import EnvelopeCodec
from shop.metrics import Metrics
from shop.topics import NEW_ORDER
from shop.users.model import FanOutRow, State
from shop.watch import Watch
from tests import metric_names
from tests.backends import Backend
from tests.commands import ShopPlace
from tests.scraping import Scrape, parsed, scraped
from tests.waiting import eventually

TEXT = EnvelopeCodec[str]({"java.lang.String": str})

Listen = Callable[..., ListenerContainer]
MakeTopic = Callable[..., Topic[str]]


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metrics]:
    monkeypatch.setattr("shop.background.ASK_EVERY_S", 0.05)
    metrics = Metrics("test")
    yield metrics
    metrics.close()


def read(metrics: Metrics) -> Scrape:
    return parsed(*metrics.page(""))


def outcomes(metrics: Metrics, group: str, topic: Topic[str]) -> dict[str, float]:
    """Those that there were."""
    return {
        labels["outcome"]: value
        for name, labels, value in read(metrics).samples
        if name == "shop_listener_records_total"
        and (labels["group"], labels["topic"]) == (group, topic.name)
        and value
    }


def test_each_record_is_counted_as_what_it_came_to(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    database: Database, store: DatabaseStore, metrics: Metrics,
) -> None:  # fmt: skip
    database.metrics = metrics.databases
    topic, letters = make_topic(TEXT), make_topic(DeadLetterCodec())
    away = True

    @listener(topic, group=group)
    def on(text: str, work: Work, ack: Acknowledgment) -> None:
        nonlocal away
        if text == "bad":
            raise ValueError(text)
        if text == "needs what is away" and away:
            away = False
            raise Unavailable("not there")
        work.add(Decision, order_id=text, amount=Decimal(1), is_fraud=False)
        ack.acknowledge()

    for text in ("a", "b", "needs what is away", "bad", "c"):
        template.send(topic, text, text)
    repeat = outbound(topic, "k", "twice", correlation_id="Test(1)")
    for _ in range(3):
        template.publish(repeat, lambda *_: None)
    assert template.flush(60) == 0
    retry = Retry(3, Backoff(first=0.02, longest=0.05))
    listen(on, store=store, metrics=metrics.listeners, retry=retry,
           dead_letters=DeadLetters(letters.name))  # fmt: skip
    expected = {"handled": 5, "duplicate": 2, "failed": 3, "retried": 3, "dead": 1}
    eventually(lambda: outcomes(metrics, group, topic) == expected, f"{expected}")

    with database.write() as connection:  # as another consumer would, which handled two more
        connection.execute(update(position).values(next_offset=10))
    for text in ("handled elsewhere 1", "handled elsewhere 2", "mine"):
        template.send(topic, "k", text)
    eventually(lambda: outcomes(metrics, group, topic).get("handled") == 6)
    assert outcomes(metrics, group, topic)["fenced"] >= 1

    found = read(metrics)
    labels = {"group": group, "topic": topic.name}
    calls = found.one("shop_listener_duration_seconds_count", **labels)
    assert calls is not None
    assert calls >= 6 + 3 + 1, "what was rolled back was called too"
    assert found.one("shop_listener_age_seconds_count", **labels) == 6
    assert (found.one("shop_database_wait_seconds_count", database="fraud") or 0) > 6


@pytest.mark.parametrize("way", ["without a store", "external", "repeatable"])
def test_records_are_counted_alike_whatever_remembers_them(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    store: DatabaseStore, metrics: Metrics, way: str,
) -> None:  # fmt: skip
    topic = make_topic(TEXT)
    failed: list[str] = []

    def on(text: str, ack: Acknowledgment) -> None:
        if text == "once bad" and not failed:
            failed.append(text)
            raise ValueError(text)
        ack.acknowledge()

    outside = {"external": way != "without a store", "repeatable": way == "repeatable"}
    declared = listener(topic, group=group, **outside)(on)
    repeat = outbound(topic, "k", "twice", correlation_id="Test(1)")
    for text in ("a", "once bad", "b"):
        template.send(topic, text, text)
    for _ in range(2):
        template.publish(repeat, lambda *_: None)
    assert template.flush(60) == 0
    remembers: dict[str, Any] = {} if way == "without a store" else {"store": store}
    listen(declared, metrics=metrics.listeners, **remembers)
    repeats = 1 if remembers else 0  # without a store there are no receipts
    expected = {"handled": 5 - repeats, "failed": 1, "retried": 1, "duplicate": repeats}
    expected = {outcome: count for outcome, count in expected.items() if count}
    eventually(lambda: outcomes(metrics, group, topic) == expected, f"{expected}")
    labels = {"group": group, "topic": topic.name}
    assert read(metrics).one("shop_listener_age_seconds_count", **labels) == 5 - repeats


def test_lag_is_what_is_left_and_oldest_the_age_of_its_first(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    store: DatabaseStore, metrics: Metrics,
) -> None:  # fmt: skip
    topic = make_topic(TEXT, partitions=2)
    goes_on = threading.Event()

    @listener(topic, group=group)
    def on(text: str) -> None:
        goes_on.wait()

    container = listen(on, store=store, metrics=metrics.listeners)
    show_groups(metrics, Watch([container], 300), [container], kafka)
    sent = [template.send(topic, "k", str(number)) for number in range(5)]
    partition = sent[0].partition
    labels = {"group": group, "topic": topic.name, "partition": str(partition)}
    others = labels | {"partition": str(1 - partition)}
    eventually(lambda: read(metrics).one("shop_listener_lag", **labels) == 5)
    first = eventually(lambda: read(metrics).one("shop_listener_oldest_seconds", **labels))
    eventually(lambda: read(metrics).one("shop_listener_oldest_seconds", **labels) > first)
    assert read(metrics).one("shop_listener_lag", **others) == 0
    assert read(metrics).one("shop_listener_oldest_seconds", **others) == 0
    assert read(metrics).one("shop_listener_ready", group=group) == 1

    goes_on.set()
    eventually(lambda: read(metrics).one("shop_listener_lag", **labels) == 0)
    assert read(metrics).one("shop_listener_oldest_seconds", **labels) == 0


def test_without_brokers_there_is_no_lag_and_all_else_can_be_read(
    make_topic: MakeTopic, listen: Listen, group: str, metrics: Metrics
) -> None:
    topic = make_topic(TEXT)

    @listener(topic, group=group)
    def on(text: str) -> None: ...

    container = listen(on, metrics=metrics.listeners)
    nobody = Connection(f"127.0.0.1:{free_port()}")
    show_groups(metrics, Watch([container], 300), [container], nobody)
    eventually(lambda: read(metrics).one("shop_listener_ready", group=group) == 1)
    found = read(metrics)
    assert "shop_listener_records_total" in found.names
    assert not found.names & {"shop_listener_lag", "shop_listener_oldest_seconds"}


def test_keys_make_no_series(
    template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    store: DatabaseStore, metrics: Metrics,
) -> None:  # fmt: skip
    topic = make_topic(TEXT)

    @listener(topic, group=group)
    def on(text: str) -> None: ...

    listen(on, store=store, metrics=metrics.listeners)
    template.send(topic, "k", "first")
    eventually(lambda: outcomes(metrics, group, topic) == {"handled": 1})
    series = len(read(metrics))
    for number in range(1000):
        template.send_async(topic, os.urandom(8).hex(), str(number))
    eventually(lambda: outcomes(metrics, group, topic) == {"handled": 1001})
    assert len(read(metrics)) == series


@pytest.fixture
def place(tmp_path: Path) -> Iterator[ShopPlace]:
    """One whose topics nobody else writes to."""
    place = ShopPlace(tmp_path)
    yield place
    place.close()


def test_the_processes_of_the_shop_show_what_there_is_to_see(
    place: ShopPlace,
) -> None:
    http, health = free_port(), free_port()
    api = f"http://127.0.0.1:{http}"
    listeners = f"http://127.0.0.1:{health}/metrics"
    with place.running("serve", SHOP_HTTP__PORT=str(http)):
        with place.running("listen", "--group", "fraud", SHOP_HEALTH__PORT=str(health)):
            order = {"email": "ana@example.com", "amount": 1}
            for _ in range(3):
                assert httpx.post(f"{api}/orders", json=order).status_code == 202
            with KafkaTemplate(place.kafka) as template:
                event = Order(order_id="o-1", amount=Decimal(1), email="ana@example.com")
                twice = outbound(NEW_ORDER, event.email, event, correlation_id="Test(1)")
                for record in (twice, twice, replace(twice, value=b"{")):
                    template.publish(record, lambda *_: None)
                assert template.flush(60) == 0

            def came_to(outcome: str) -> float | None:
                labels = {"group": "fraud", "topic": NEW_ORDER.name, "outcome": outcome}
                return scraped(listeners).one("shop_listener_records_total", **labels)

            eventually(lambda: (came_to("handled"), came_to("dead")) == (4, 1))
            assert (came_to("duplicate"), came_to("failed")) == (1, 1)
            expected = metric_names.LISTENERS | metric_names.DATABASES
            # Some are known only from the first look on, or from the brokers' first answer.
            eventually(lambda: expected <= set(scraped(listeners).names))
            of_listeners = scraped(listeners, accept="application/openmetrics-text")
        httpx.get(f"{api}/nothing/there")
        shown = metric_names.API | metric_names.DATABASES
        eventually(lambda: shown <= set(scraped(f"{api}/metrics").names))
        of_api = scraped(f"{api}/metrics")
    ours = ("shop_", "http_")
    names = {n for n in of_listeners.names if n.startswith(ours)}
    assert names == metric_names.LISTENERS | metric_names.DATABASES
    names = {n for n in of_api.names if n.startswith(ours)}
    assert names == metric_names.API | metric_names.DATABASES
    assert of_api.one("shop_outbox_published_total", database="orders") == 3
    requests = "http_server_request_duration_seconds_count"
    assert of_api.one(requests, http_route="/orders", http_response_status_code="202") == 3
    assert of_api.one(requests, http_route="", http_response_status_code="404") == 1
    assert of_listeners.one("target_info", service_name="shop-fraud") == 1
    assert {"process_start_time_seconds", "process_cpu_seconds_total"} <= of_listeners.names


def test_a_fan_out_that_does_not_end_is_seen(
    backend: Backend, tmp_path: Path, metrics: Metrics
) -> None:
    users = backend.open("users", tmp_path)
    show_fan_outs(metrics, users)
    eventually(lambda: read(metrics).one("shop_fan_out_running") == 0)
    assert read(metrics).one("shop_fan_out_age_seconds") == 0
    metrics.close()

    with users.write() as connection:
        for state, asked_at in ((State.FINISHED, 1), (State.RUNNING, time.time_ns() // 10**6)):
            row = {"id": state, "target": "T", "correlation_id": "c", "state": state}
            connection.execute(
                insert(FanOutRow), row | {"asked_at": asked_at, "sent": 0, "cursor": ""}
            )
    later = Metrics("test")
    show_fan_outs(later, users)
    eventually(lambda: read(later).one("shop_fan_out_running") == 1)
    age = eventually(lambda: read(later).one("shop_fan_out_age_seconds"))
    assert 0 < age < 60
    eventually(lambda: (read(later).one("shop_fan_out_age_seconds") or 0) > age)
    later.close()
    users.close()


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP, as an OpenTelemetry collector does on /v1/metrics."""

    def __init__(self) -> None:
        self.metrics: dict[str, Metric] = {}
        super().__init__(("127.0.0.1", 0), _Receive)


class _Receive(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in resource.scope_metrics:
                self.server.metrics |= {metric.name: metric for metric in scope.metrics}
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_metrics_are_pushed_where_an_endpoint_of_theirs_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collector = Collector()
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{collector.server_port}/v1/metrics"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none")
    metrics = Metrics("test")
    metrics.listeners.count("g", "T", "handled", 2)
    metrics.listeners.calls.series(group="g", topic="T").record([0.0001, 0.002, 100.0])
    metrics.close()
    collector.shutdown()
    collector.server_close()
    (point,) = collector.metrics["shop.listener.duration"].histogram.data_points
    assert (point.count, point.min, point.max) == (3, 0.0001, 100.0)
    assert [count for count in point.bucket_counts if count] == [1, 1, 1]
    assert point.bucket_counts[0] == 1, "a bound belongs to the bucket below it"
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert {a.key: a.value.string_value for a in point.attributes} == {"group": "g", "topic": "T"}
    assert "shop.listener.records" in collector.metrics
