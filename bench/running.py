"""The running shop: seconds until it is ready, memory of its processes, what they use while nothing
happens, and its latency when idle.

`shop up` on a warm cache and a used data folder, then 20 orders a second from one client that waits
for each decision. Against it, in the same run: the same POST and GET of an order that needs no
decision, which is what HTTP and the disk take by themselves.
"""

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import httpx
import psutil
from confluent_kafka import Consumer, TopicPartition

from bench.harness import show
from shop.broker import free_port
from shop.topics import ORDER_APPROVED

PER_SECOND = 20
SECONDS = 20
IDLE_S = 20
STARTS = 3


def start(folder: Path, http: int, kafka: int) -> tuple[subprocess.Popen[str], float]:
    """`shop up`, and the seconds until it said that it is ready."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "shop.cli", "up", "--quiet"],
        env=os.environ
        | {
            "SHOP_DATA_DIR": str(folder),
            "SHOP_HTTP__PORT": str(http),
            "SHOP_BROKER__PORT": str(kafka),
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "is ready" in line:
            return process, time.perf_counter() - began
    raise SystemExit("shop up did not start")


def stop(process: subprocess.Popen[str]) -> float:
    began = time.perf_counter()
    process.send_signal(signal.SIGINT)
    process.wait()
    return time.perf_counter() - began


def processes(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """Those below `shop up`, and its own."""
    found = {}
    for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]:
        arguments = each.cmdline()
        names = {"up": "supervisor", "serve": "API", "listen": "listeners"}
        name = next((names[a] for a in arguments if a in names), None)
        if name is None and any(a.endswith("/java") for a in arguments[:1]):
            name = "Kafka (JVM)"
        if name:
            found[name] = each
    return found


def idle(process: subprocess.Popen[str]) -> dict[str, float]:
    """The share of a core that each process uses while nothing happens, in percent."""
    used = []
    for pause in (IDLE_S, 0):
        times = {name: each.cpu_times() for name, each in processes(process).items()}
        used.append({name: of.user + of.system for name, of in times.items()})
        time.sleep(pause)
    return {name: round((used[1][name] - used[0][name]) / IDLE_S * 100, 1) for name in used[0]}


class Decisions:
    """Notes when the decision on each order arrives from its topic, as any consumer sees it."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.at: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(bootstrap_servers,))
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self, bootstrap_servers: str) -> None:
        consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "bench-latency"})
        topic = ORDER_APPROVED
        consumer.assign([TopicPartition(topic.name, n, 0) for n in range(topic.partitions)])
        while not self._stop.is_set():
            record = consumer.poll(0.2)
            if record is not None and not record.error():
                now = time.perf_counter()
                self.at[str(topic.codec.decode(record.value())[0].order_id)] = now
        consumer.close()


async def latencies(url: str, decided: bool) -> dict[str, tuple[float, float]]:
    """Order id -> when its POST began, and when GET answered, at a steady rate. With `decided`,
    GET waits for the decision."""
    taken: dict[str, tuple[float, float]] = {}

    async def order(client: httpx.AsyncClient, number: int) -> None:
        began = time.perf_counter()
        body = {"email": f"customer{number}@example.com", "amount": "100.00"}
        answer = await client.post("/orders", json=body)
        wait = "?wait=10" if decided else ""
        state = (await client.get(answer.headers["location"] + wait)).json()
        assert not decided or state["status"] == "approved", state
        taken[state["id"]] = (began, time.perf_counter())

    async with httpx.AsyncClient(base_url=url, timeout=30) as client, asyncio.TaskGroup() as group:
        began = time.perf_counter()
        for number in range(PER_SECOND * SECONDS):
            await asyncio.sleep(max(0.0, began + number / PER_SECOND - time.perf_counter()))
            group.create_task(order(client, number))
    return dict(list(taken.items())[PER_SECOND:])  # the first second warms up


def milliseconds(spans: Iterable[tuple[float, float]]) -> list[float]:
    return [(end - begin) * 1000 for begin, end in spans]


def percentiles(values: list[float]) -> tuple[float, float]:
    return statistics.median(values), statistics.quantiles(values, n=100)[98]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="shop-bench-") as folder:
        http, kafka = free_port(), free_port(2)
        process, first = start(Path(folder), http, kafka)
        ready, stops = [], []
        for _ in range(STARTS):
            stops.append(stop(process))
            process, seconds = start(Path(folder), http, kafka)
            ready.append(seconds)
        at_rest = idle(process)
        url = f"http://127.0.0.1:{http}"
        plain = percentiles(milliseconds(asyncio.run(latencies(url, decided=False)).values()))
        observer = Decisions(f"127.0.0.1:{kafka}")
        asked = asyncio.run(latencies(url, decided=True))
        observer.stop()
        whole = percentiles(milliseconds(asked.values()))
        topic = percentiles(milliseconds((t, observer.at[id_]) for id_, (t, _) in asked.items()))
        used = {n: each.memory_info().rss // 2**20 for n, each in processes(process).items()}
        stops.append(stop(process))
    show(
        "running",
        [
            ("ready, new data folder", f"{first:5.1f} s"),
            ("ready, again", f"{statistics.median(ready):5.1f} s  (aim: under 4)"),
            ("stopped after Ctrl-C", f"{statistics.median(stops):5.1f} s"),
            *((f"memory of {name}", f"{mb:5d} MB") for name, mb in used.items()),
            *((f"{name} at rest", f"{share:5.1f} % of a core") for name, share in at_rest.items()),
            (
                f"POST to the decision on its topic at {PER_SECOND}/s, p50 / p99",
                f"{topic[0]:5.1f} / {topic[1]:.1f} ms  (aim: p50 under 15)",
            ),
            ("POST and GET without waiting", f"{plain[0]:5.1f} / {plain[1]:.1f} ms"),
            (
                "POST and GET that waits for the decision",
                f"{whole[0]:5.1f} / {whole[1]:.1f} ms  ratio {whole[0] / plain[0]:.1f}",
            ),
        ],
        ready_s=round(statistics.median(ready), 2),
        ready_first_s=round(first, 2),
        stop_s=round(statistics.median(stops), 2),
        memory_mb=used,
        idle_percent=at_rest,
        decision_ms={"p50": round(topic[0], 1), "p99": round(topic[1], 1)},
        wait_ms={"p50": round(whole[0], 1), "p99": round(whole[1], 1)},
        http_ms={"p50": round(plain[0], 1), "p99": round(plain[1], 1)},
        ratio=round(whole[0] / plain[0], 1),
        aims={"ready_s": 4, "python_mb": 120, "p50_ms": 15},
    )


if __name__ == "__main__":
    main()
