"""What being seen costs: a listener and POST /orders with tracing off, at 10 %, at 100 %, and with
metrics, by turns in one run.

CPU counts, of the process that is looked at, its exporter included; spans go by OTLP to a process
that throws them away. The listener once only decodes and acknowledges, and once sends an event for
each record, as the fraud service does. Off is what a shop does without OTEL_EXPORTER_OTLP_ENDPOINT;
it stands twice in each round, so that the difference between the two shows what this machine cannot
tell apart.
"""

import argparse
import gc
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

from opentelemetry import trace

from bench.harness import fill, kafka, new_topic, show
from bench.http import measure as load
from bench.metrics import EFFECTS, RECORDS, cpu_of
from shop import telemetry
from shop.db.database import Database
from shop.db.schema import upgrade
from shop.db.store import DatabaseStore
from shop.http.app import create_app
from shop.http.server import HttpServer
from shop.http.waiting import LongPoll
from shop.kafka.connection import Connection
from shop.kafka.topic import Topic
from shop.metrics import Metrics
from shop.orders.api import orders_api
from shop.orders.desk import OrderDesk
from shop.orders.reading import OrderReader
from shop.settings import Settings
from shop.topics import NEW_ORDER

OFF, AGAIN, TENTH, ALL, METRICS = "off", "off again", "10 %", "100 %", "metrics, no tracing"
MODES = (OFF, AGAIN, TENTH, ALL, METRICS)
ROUNDS = 5
CONNECTIONS = 16
SECONDS = 4.0


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


def run_listener(mode: str, effect: str, broker: str, topic_name: str) -> None:
    """Prints the microseconds of CPU per record, from the first until all spans are sent."""
    metrics = _metrics(mode)
    provider = trace.get_tracer_provider()
    sent = getattr(provider, "force_flush", lambda: None)
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'fraud.db'}")
        upgrade(database, "shop.fraud")
        database.metrics = metrics.databases if metrics else None
        topic = Topic(topic_name, NEW_ORDER.codec, key=NEW_ORDER.key)
        gc.collect()
        gc.freeze()  # as a process of the shop does
        store = DatabaseStore(database)
        took = cpu_of(Connection(broker), topic, store, EFFECTS[effect], metrics, finish=sent)
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


def _environment(mode: str, sink: int) -> dict[str, str]:
    if mode not in (TENTH, ALL):
        return dict(os.environ)
    return os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1" if mode == TENTH else "1",
    }


def _process(sink: int, role: str, mode: str, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.tracing", role, mode, *more],
        env=_environment(mode, sink),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _cpu(pid: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def listeners(sink: int) -> dict[str, dict[str, list[float]]]:
    """By what the listener does."""
    found = {effect: {mode: list[float]() for mode in MODES} for effect in EFFECTS}
    with kafka() as connection:
        shares = (None, 0.1, 1.0)
        topics = {share: new_topic(connection, "bench-tracing") for share in shares}
        for share, topic in topics.items():
            fill(connection, topic, RECORDS, traced=share)
        share_of = {TENTH: 0.1, ALL: 1.0}
        for number in range(ROUNDS):
            for effect, mode in product(EFFECTS, (*MODES[number:], *MODES[:number])):
                topic = topics[share_of.get(mode)]
                args = (effect, connection.bootstrap_servers, topic.name)
                told, _ = _process(sink, "listener", mode, *args).communicate()
                found[effect][mode].append(float(told.split()[-1]))
    return found


def requests(sink: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {mode: [] for mode in MODES}
    with ExitStack() as stack:
        servers = {mode: _process(sink, "server", mode) for mode in MODES}
        ports = {}
        for mode, server in servers.items():
            stack.callback(server.wait)
            stack.callback(server.terminate)
            assert server.stdout is not None
            ports[mode] = int(server.stdout.readline())
            load(ports[mode], CONNECTIONS, 1.0)
        for number in range(ROUNDS):
            for mode in (*MODES[number:], *MODES[:number]):
                server = servers[mode]
                before = _cpu(server.pid)
                per_s = load(ports[mode], CONNECTIONS, SECONDS)["per_s"]
                found[mode].append((_cpu(server.pid) - before) / (per_s * SECONDS) * 1e6)
    return found


def _show(name: str, unit: str, found: dict[str, list[float]]) -> None:
    ratios = {
        mode: statistics.median(off / took for off, took in zip(found[OFF], runs, strict=True))
        for mode, runs in found.items()
    }
    show(
        name,
        [
            (mode, f"{statistics.median(runs):6.1f} us CPU per {unit}  ratio {ratios[mode]:.3f}")
            for mode, runs in found.items()
        ],
        ratio_off_again=round(ratios[AGAIN], 3),
        ratio=round(ratios[TENTH], 3),
        ratio_all=round(ratios[ALL], 3),
        ratio_metrics=round(ratios[METRICS], 3),
        required={"ratio": 0.87},  # at most 15 % more CPU
    )


def main() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bench.tracing", "sink", OFF], stdout=subprocess.PIPE, text=True
    ) as sink:
        assert sink.stdout is not None
        port = int(sink.stdout.readline())
        try:
            for effect, found in listeners(port).items():
                _show(f"tracing of a listener that {effect}", "record", found)
            _show("tracing of POST /orders", "request", requests(port))
        finally:
            sink.send_signal(signal.SIGKILL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["sink", "listener", "server"])
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("more", nargs="*")
    asked = parser.parse_args()
    if asked.role == "sink":
        run_sink()
    elif asked.role == "listener":
        run_listener(asked.mode, *asked.more)
    else:
        run_server(asked.mode)
