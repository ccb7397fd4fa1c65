"""Spans on their way out: all of them, in time, and what is said when they cannot leave."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from shop.tracing import export
from shop.tracing.export import SpanQueue
from shop.tracing.otlp import Written
from shop.tracing.provider import Provider
from tests import logs
from tests.waiting import eventually

LOGGER = "shop.tracing.export"

Start = Callable[..., Callable[[int], None]]


class Collector:
    """Takes spans unless told not to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.asked = threading.Event()
        self.taking = threading.Event()
        self.taking.set()
        self.meanwhile: Callable[[], object] = lambda: None  # called before it takes some
        self.away = False
        self.ended = False

    def take(self, written: Written) -> object:
        self.asked.set()
        self.taking.wait(30)
        self.meanwhile()
        if self.away:
            return "it is away"
        ((scope, in_a_row),) = written.items()
        assert scope == "test"
        spans = ScopeSpans.FromString(bytes(in_a_row)).spans
        self.batches.append([span.name for span in spans])
        return None

    def shutdown(self) -> None:
        self.ended = True

    @property
    def names(self) -> list[str]:
        return [name for batch in self.batches for name in batch]


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def start(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """start(**variables of OTEL_BSP) -> end(count): end so many spans."""
    providers: list[Provider] = []

    def begin(**variables: int) -> Callable[[int], None]:
        for name, value in variables.items():
            monkeypatch.setenv(f"OTEL_BSP_{name}", str(value))
        provider = Provider(shutdown_on_exit=False)
        provider.add_span_processor(SpanQueue(collector))
        providers.append(provider)
        tracer = provider.get_tracer("test")

        def end(count: int) -> None:
            for number in range(count):
                tracer.start_span(str(number), Context()).end()

        return end

    yield begin
    collector.taking.set()
    for provider in providers:
        provider.shutdown()
    assert collector.ended


HOUR_MS = 3_600_000
DROPPED = " spans were dropped: more than the collector takes in time"


def test_spans_are_sent_in_their_order_and_in_batches(start: Start, collector: Collector) -> None:
    end = start(SCHEDULE_DELAY=10, MAX_EXPORT_BATCH_SIZE=40)
    end(100)
    eventually(lambda: len(collector.names) == 100)

    assert collector.names == [str(number) for number in range(100)]
    assert max(map(len, collector.batches)) <= 40


def test_a_queue_that_is_half_full_is_sent_at_once(start: Start, collector: Collector) -> None:
    end = start(SCHEDULE_DELAY=HOUR_MS, MAX_QUEUE_SIZE=100)
    end(49)
    assert not collector.asked.wait(0.2), "there is room for as many"
    end(1)
    eventually(lambda: len(collector.names) == 50)


def test_what_ends_while_others_are_sent_waits_for_the_next_time(
    start: Start, collector: Collector
) -> None:
    """Else a slow collector gets a request for each span under load, and no pause."""
    end = start(SCHEDULE_DELAY=HOUR_MS, MAX_QUEUE_SIZE=100)
    collector.meanwhile = lambda: end(1)
    end(50)
    eventually(lambda: collector.names)
    collector.meanwhile = lambda: None
    end(49)
    eventually(lambda: len(collector.names) == 100)

    assert [len(batch) for batch in collector.batches] == [50, 50]


def test_large_spans_are_fewer_in_a_request_and_in_the_queue(
    start: Start,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(export, "BATCH_BYTES", 500)  # of which a span has some 60 here
    monkeypatch.setattr(export, "QUEUED_BYTES", 5000)
    collector.taking.clear()
    end = start(SCHEDULE_DELAY=HOUR_MS)
    end(110)
    collector.taking.set()
    eventually(lambda: logs.records(caplog, LOGGER), "a line")
    dropped = int(logs.messages(caplog, LOGGER)[0].removesuffix(DROPPED))
    eventually(lambda: len(collector.names) == 110 - dropped)

    assert 10 < dropped < 60
    assert max(map(len, collector.batches)) < 12


def test_a_batch_that_is_refused_counts_also_when_a_later_one_is_taken(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", str(HOUR_MS))
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    queue = SpanQueue(collector)
    provider = Provider(shutdown_on_exit=False)
    provider.add_span_processor(queue)
    for name in ("refused", "taken"):
        provider.get_tracer("test").start_span(name, Context()).end()
    answers = iter([True, False])
    collector.meanwhile = lambda: setattr(collector, "away", next(answers))

    assert not queue.force_flush()
    assert collector.names == ["taken"]
    provider.shutdown()


def test_a_full_queue_drops_and_says_how_many(
    start: Start, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.taking.clear()
    end = start(SCHEDULE_DELAY=HOUR_MS, MAX_QUEUE_SIZE=100)
    end(50)
    assert collector.asked.wait(30)
    end(130)
    collector.taking.set()
    eventually(lambda: len(collector.names) == 150)
    eventually(lambda: logs.records(caplog, LOGGER), "a line")

    assert logs.messages(caplog, LOGGER) == [f"30{DROPPED}"]


def test_what_is_left_at_the_end_is_sent(collector: Collector, start: Start) -> None:
    provider = Provider(shutdown_on_exit=False)
    start(SCHEDULE_DELAY=HOUR_MS)
    provider.add_span_processor(SpanQueue(collector))
    provider.get_tracer("test").start_span("last", Context()).end()
    provider.shutdown()

    assert collector.names == ["last"]


def test_a_collector_that_goes_and_comes_back_is_two_lines(
    start: Start, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    end = start(SCHEDULE_DELAY=5, MAX_EXPORT_BATCH_SIZE=1)
    collector.away = True
    end(5)
    eventually(lambda: logs.records(caplog, LOGGER), "a line")
    end(5)
    collector.away = False

    def arrived() -> bool:
        end(1)
        return bool(collector.names)

    eventually(arrived)
    eventually(lambda: len(logs.records(caplog, LOGGER)) == 2, "another line")
    assert [record.levelname for record in logs.records(caplog, LOGGER)] == ["WARNING", "INFO"]
    assert (
        logs.messages(caplog, LOGGER)[0]
        == "1 spans are lost, trying on with later ones: it is away"
    )
    assert logs.messages(caplog, LOGGER)[1] == "the collector takes spans again"


def test_what_a_collector_does_not_take_at_the_end_is_told(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", str(HOUR_MS))
    collector.away = True
    provider = Provider(shutdown_on_exit=False)
    provider.add_span_processor(SpanQueue(collector))
    for _ in range(50):
        provider.get_tracer("test").start_span("last", Context()).end()
    provider.shutdown()

    assert logs.messages(caplog, LOGGER) == [
        "50 spans may be lost: the process ends before they are taken"
    ]


class Unspeakable:
    def __str__(self) -> str:
        raise ValueError("no words")


def test_a_span_that_cannot_be_written_is_dropped_and_hurts_nobody(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    provider = Provider(shutdown_on_exit=False)
    provider.add_span_processor(SpanQueue(collector))
    tracer = provider.get_tracer("test")
    odd: Any = {"what": Unspeakable()}
    for _ in range(2):
        tracer.start_span("odd", Context(), attributes=odd).end()
    tracer.start_span("even", Context()).end()
    provider.shutdown()

    assert collector.names == ["even"]
    told = "span odd is lost: it cannot be written: ValueError('no words')"
    assert logs.messages(caplog, LOGGER) == [told]


def test_a_number_that_is_none_is_told_and_the_default_counts(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "many")
    start()

    assert logs.messages(caplog, LOGGER) == [
        "OTEL_BSP_MAX_QUEUE_SIZE=many is no number above 0; it is 32768"
    ]
