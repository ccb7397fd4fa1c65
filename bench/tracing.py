"""What being seen costs: a listener, the fraud service and POST /orders with tracing off, at 10 %,
at 100 %, and with metrics, by turns in one run.

CPU counts, of the process that is looked at, its exporter included; spans go by OTLP to a process
that throws them away. The listener only decodes and acknowledges, the least that a record can cost.
The fraud service is the real process, from the topic to its published decisions. Records carry the
traceparents that they have in a shop that traces, also where tracing is off: without
OTEL_EXPORTER_OTLP_ENDPOINT.

Each cost is set against that of off at the same time: a machine may be slower by a third within
seconds. Two listeners run at once and share one core, off and the one that is looked at; the others
take short turns. Off is looked at like the rest, as "off again": by how much it differs is what
this machine cannot tell apart. What off itself costs, a listener tells from whose code the tracing
is taken out.
"""

import argparse
import gc
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry import trace

from bench.fraud import decisions
from bench.harness import fill, kafka, listening, new_topic, show
from bench.http import measure as load
from bench.metrics import cpu_of, nothing
from shop import telemetry
from shop.db.database import Database
from shop.db.schema import upgrade
from shop.db.store import DatabaseStore
from shop.http.app import create_app
from shop.http.server import HttpServer
from shop.http.waiting import LongPoll
from shop.kafka import consumer, dispatch
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.topic import Topic
from shop.metrics import Metrics
from shop.orders.api import orders_api
from shop.orders.desk import OrderDesk
from shop.orders.reading import OrderReader
from shop.settings import Settings
from shop.topics import ALL as TOPICS
from shop.topics import NEW_ORDER
from shop.tracing.begin import begin_here
from shop.tracing.remote import Remote, Shared

OFF, AGAIN, TENTH, ALL, METRICS = "off", "off again", "10 %", "100 %", "metrics, no tracing"
MODES = (OFF, TENTH, AGAIN, ALL, METRICS)  # the two that are alike not next to each other
BARE = "no tracing in the code"  # of a listener; what off itself costs
RECORDS, ROUNDS = 240_000, 7  # of a listener
ORDERS, FRAUD_ROUNDS = 60_000, 5
CONNECTIONS = 16
# Short rounds spread over all modes what else a machine does; processes made anew, what is given to
# one of them by lot: the places of its objects in memory and of their names in dictionaries.
GENERATIONS, HTTP_ROUNDS, SECONDS = 5, 5, 1.0

Runs = dict[str, list[float]]  # microseconds of CPU in each round, by mode
Found = dict[str, list[tuple[float, float]]]  # the same, each with what off cost meanwhile


class Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # a collector keeps connections

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def run_sink() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    print(server.server_port, flush=True)
    server.serve_forever()


def _metrics(mode: str) -> Metrics | None:
    telemetry.configure(Settings(), "bench")
    return Metrics("bench") if mode == METRICS else None


def run_listener(mode: str, broker: str, topic_name: str) -> None:
    """Prints the microseconds of CPU per record, from the first until all spans are sent."""
    metrics = _metrics(mode)
    sent = getattr(trace.get_tracer_provider(), "force_flush", lambda: None)
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'fraud.db'}")
        upgrade(database, "shop.fraud")
        database.metrics = metrics.databases if metrics else None
        topic = Topic(topic_name, NEW_ORDER.codec, key=NEW_ORDER.key)
        sender = Remote(b"\1" * 16, b"\2" * 8, trace.TraceFlags.SAMPLED)
        begin_here("bench")("first", sender, trace.SpanKind.INTERNAL, Shared(), {}).end()
        sent()  # the first request imports much
        gc.collect()
        gc.freeze()  # as a process of the shop does
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        store = DatabaseStore(database)
        if mode == BARE:
            dispatch.recorded = lambda _: False  # type: ignore[assignment]
            consumer.Batch = lambda *_, **__: nullcontext()  # type: ignore[assignment,misc]
        took = cpu_of(Connection(broker), topic, store, nothing, metrics, RECORDS, finish=sent)
        database.close()
    print(took, flush=True)
    telemetry.flush()


def run_server(mode: str) -> None:
    """Prints its port, and at its end nothing."""
    metrics = _metrics(mode)
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'orders.db'}")
        upgrade(database, "shop.orders")
        database.metrics = metrics.databases if metrics else None
        reader = OrderReader(database)
        routes = orders_api(OrderDesk(database), reader, LongPoll(reader))
        app = create_app(routes, metrics=metrics.http if metrics else None)
        server = HttpServer(app, port=0)
        server.run(started=lambda: print(server.port, flush=True))


def _variables(mode: str, sink: int) -> dict[str, str]:
    if mode not in (TENTH, ALL):
        return {}
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1" if mode == TENTH else "1",
    }


def _process(sink: int, role: str, mode: str, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.tracing", role, mode, *more],
        env=os.environ | _variables(mode, sink),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _cpu(pid: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _turns(number: int, modes: Sequence[str]) -> Iterator[str]:
    """All modes, in each round another one first."""
    begin = number % len(modes)
    yield from (*modes[begin:], *modes[:begin])


def listener(sink: int) -> Found:
    found: Found = {mode: [] for mode in (*MODES, BARE) if mode != OFF}
    with kafka() as connection:
        topics = {mode: new_topic(connection, "bench-tracing") for mode in (TENTH, ALL)}
        fill(connection, topics[TENTH], RECORDS, traced=0.1)
        fill(connection, topics[ALL], RECORDS, traced=1.0)
        for number in range(ROUNDS):
            for mode in _turns(number, list(found)):
                args = connection.bootstrap_servers, topics.get(mode, topics[TENTH]).name
                both = [_process(sink, "listener", one, *args) for one in (mode, OFF)]
                took, off = (float(one.communicate()[0].split()[-1]) for one in both)
                found[mode].append((took, off))
    return found


def fraud(sink: int) -> Found:
    runs: Runs = {mode: [] for mode in MODES}
    for share, modes in ((0.1, (OFF, TENTH, AGAIN, METRICS)), (1.0, (ALL,))):
        with kafka() as connection:
            create_topics(connection, TOPICS)
            fill(connection, NEW_ORDER, ORDERS, traced=share)
            for number in range(FRAUD_ROUNDS):
                for mode in _turns(number, modes):
                    runs[mode].append(_cpu_of_fraud(connection, mode, sink))
    return _with_off(runs)


def _with_off(runs: Runs) -> Found:
    """Off is the middle between the two of a round."""
    off = [statistics.mean(both) for both in zip(runs[OFF], runs[AGAIN], strict=True)]
    found = {mode: list(zip(took, off, strict=True)) for mode, took in runs.items()}
    found[AGAIN] = list(zip(runs[AGAIN], runs.pop(OFF), strict=True))
    del found[OFF]
    return found


def _cpu_of_fraud(connection: Connection, mode: str, sink: int) -> float:
    """Microseconds per order, from the first published decision to the last."""
    reader = connection.reader()
    before = decisions(connection, reader)
    variables = _variables(mode, sink) | {"SHOP_METRICS": "on" if mode == METRICS else "off"}
    with (
        tempfile.TemporaryDirectory() as folder,
        listening(connection, "fraud", Path(folder), **variables) as process,
    ):
        first = at_first = 0.0
        while (so_far := decisions(connection, reader) - before) < ORDERS:
            assert process.poll() is None, "shop listen died"
            if so_far and not first:
                first, at_first = so_far, _cpu(process.pid)
            time.sleep(0.005)  # between two looks
        used = _cpu(process.pid) - at_first
    reader.close()
    return used / (ORDERS - first) * 1e6


def requests(sink: int) -> Found:
    runs: Runs = {mode: [] for mode in MODES}
    for _ in range(GENERATIONS):
        _generation(sink, runs)
    return _with_off(runs)


def _generation(sink: int, runs: Runs) -> None:
    with ExitStack() as stack:
        servers = {mode: _process(sink, "server", mode) for mode in MODES}
        ports = {}
        for mode, server in servers.items():
            stack.callback(server.wait)
            stack.callback(server.terminate)
            assert server.stdout is not None
            ports[mode] = int(server.stdout.readline())
            load(ports[mode], CONNECTIONS, 1.0)
        for number in range(HTTP_ROUNDS):
            for mode in _turns(number, MODES):
                server = servers[mode]
                before = _cpu(server.pid)
                per_s = load(ports[mode], CONNECTIONS, SECONDS)["per_s"]
                runs[mode].append((_cpu(server.pid) - before) / (per_s * SECONDS) * 1e6)


def _show(name: str, unit: str, found: Found, **required: float) -> None:
    """Of each mode the median of its costs, and of their ratios to off at the same time."""
    ratios = {
        mode: round(statistics.median(off / took for took, off in runs), 3)
        for mode, runs in found.items()
    }
    costs = {OFF: statistics.median(off for runs in found.values() for _, off in runs)}
    costs |= {mode: statistics.median(took for took, _ in runs) for mode, runs in found.items()}
    rows = [
        (mode, f"{costs[mode]:6.1f} us CPU per {unit}  ratio {ratios.get(mode, 1.0):.3f}")
        for mode in (*MODES, BARE)
        if mode in costs
    ]
    more: dict[str, Any] = {}
    if BARE in ratios:
        more["ratio_off"] = round(1 / ratios[BARE], 3)
    show(
        name,
        rows,
        ratio_off_again=ratios[AGAIN],
        ratio=ratios[TENTH],
        ratio_all=ratios[ALL],
        ratio_metrics=ratios[METRICS],
        required=required,
        **more,
    )


def main() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bench.tracing", "sink", OFF], stdout=subprocess.PIPE, text=True
    ) as sink:
        assert sink.stdout is not None
        port = int(sink.stdout.readline())
        try:
            # At most 15 % more CPU; off, hardly more than two runs of the same may differ by.
            of_listener = listener(port)
            _show(
                "tracing of a listener that does nothing", "record", of_listener,
                ratio=0.87, ratio_off=0.95,
            )  # fmt: skip
            _show("tracing of the fraud service", "order", fraud(port), ratio=0.87)
            _show("tracing of POST /orders", "request", requests(port), ratio=0.87)
        finally:
            sink.send_signal(signal.SIGKILL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["sink", "listener", "server"])
    parser.add_argument("mode", choices=(*MODES, BARE))
    parser.add_argument("more", nargs="*")
    asked = parser.parse_args()
    if asked.role == "sink":
        run_sink()
    elif asked.role == "listener":
        run_listener(asked.mode, *asked.more)
    else:
        run_server(asked.mode)
