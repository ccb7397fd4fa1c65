"""POST /orders: group commit against one transaction per request, in the same run.

`python -m bench.http` prints a table and one JSON line per number of connections. The competitor
is a conventional handler: the same validation, tables and server, one ORM session and one commit
per request in the thread pool. Server and load generator are processes of their own; the two
designs take turns.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

from litestar import Litestar, Request, Response, post
from litestar.params import JSONBody
from sqlalchemy.orm import Session

from shop.db.database import Database
from shop.db.outbox import write_outbox
from shop.db.schema import upgrade
from shop.http import context
from shop.http.app import create_app
from shop.http.body import JsonResponse
from shop.http.server import HttpServer
from shop.http.waiting import LongPoll
from shop.orders.api import orders_api
from shop.orders.contract import NewOrder
from shop.orders.desk import OrderDesk
from shop.orders.model import OrderRow, Status
from shop.orders.placement import placement
from shop.orders.reading import OrderReader, OrderView, moment

DESIGNS = ("group commit", "transaction per request")
CONNECTIONS = (1, 16, 64)
ROUNDS = 3
SECONDS = 4.0
WARM_UP = 1.0


def grouped(database: Database) -> Litestar:
    reader = OrderReader(database)
    return create_app(orders_api(OrderDesk(database), reader, LongPoll(reader)))


def conventional(database: Database) -> Litestar:
    @post("/orders", status_code=202, sync_to_thread=True)
    def place(request: Request[Any, Any, Any], data: JSONBody[NewOrder]) -> Response[OrderView]:
        correlation_id = context.correlation_id(request.scope, "OrderController")
        order = placement(data.email, Decimal(data.amount), data.id, correlation_id=correlation_id)
        row = OrderRow(
            id=order.order_id,
            email=order.email,
            amount=order.amount,
            status=Status.ACCEPTED,
            correlation_id=order.correlation_id,
            created_at=order.created_at,
        )
        with database.write() as connection, Session(connection) as session:
            session.add(row)
            session.flush()
            write_outbox(connection, [order.record])
        view = OrderView(
            order.order_id,
            order.email,
            order.amount,
            Status.ACCEPTED,
            order.correlation_id,
            moment(order.created_at),
        )
        return JsonResponse(
            view, status_code=202, headers={"Location": f"/orders/{order.order_id}"}
        )

    app = create_app()
    app.register(place)
    return app


def run_server(design: str, directory: Path) -> None:
    database = Database(f"sqlite:///{directory / 'orders.db'}")
    upgrade(database, "shop.orders")
    build = grouped if design == DESIGNS[0] else conventional
    server = HttpServer(build(database), port=0)
    server.run(started=lambda: print(server.port, flush=True))


async def _client(port: int, until: float, latencies: list[float], counter: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        counter[0] += 1
        body = b'{"email":"customer%d@example.com","amount":%d.50}' % (
            counter[0] % 1000,
            1 + counter[0] % 5000,
        )
        began = time.perf_counter()
        writer.write(
            b"POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 202"):
            raise RuntimeError(head.decode("latin-1"))
        length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
        await reader.readexactly(int(length))
        latencies.append(time.perf_counter() - began)
    writer.close()


async def _load(port: int, connections: int, seconds: float) -> dict[str, float]:
    latencies: list[float] = []
    began = time.perf_counter()
    clients = (_client(port, began + seconds, latencies, [n]) for n in range(connections))
    await asyncio.gather(*clients)
    took = time.perf_counter() - began
    latencies.sort()
    return {
        "per_s": len(latencies) / took,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1000,
    }


def run_load(port: int, connections: int, seconds: float) -> None:
    import uvloop

    print(json.dumps(uvloop.run(_load(port, connections, seconds))))


def measure(port: int, connections: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.http", "load", str(port), str(connections)]
    found = subprocess.run([*command, str(seconds)], check=True, stdout=subprocess.PIPE)
    result: dict[str, float] = json.loads(found.stdout)
    return result


def compare() -> None:
    with ExitStack() as stack:
        ports = {design: _start(stack, design) for design in DESIGNS}
        row = "{:>11}  {:<24}{:>8}{:>9}{:>9}"
        print(row.format("connections", "design", "req/s", "p50 ms", "p99 ms"))
        for connections in CONNECTIONS:
            found: dict[str, list[dict[str, float]]] = {design: [] for design in DESIGNS}
            for design in DESIGNS:
                measure(ports[design], connections, WARM_UP)
            for _ in range(ROUNDS):
                for design in DESIGNS:
                    found[design].append(measure(ports[design], connections, SECONDS))
            result: dict[str, Any] = {"bench": "http", "connections": connections}
            for design, rounds in found.items():
                middle = {name: round(median(r[name] for r in rounds), 1) for name in rounds[0]}
                print(row.format(connections, design, *middle.values()))
                result[design.replace(" ", "_")] = middle
            ours, theirs = (result[design.replace(" ", "_")]["per_s"] for design in DESIGNS)
            result["ratio"] = round(ours / theirs, 2)
            print(json.dumps(result), flush=True)


def _start(stack: ExitStack, design: str) -> int:
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-http-"))
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.http", "server", design, directory],
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(server.wait)
    stack.callback(server.terminate)
    assert server.stdout is not None
    return int(server.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    roles = parser.add_subparsers(dest="role")
    server = roles.add_parser("server")
    server.add_argument("design", choices=DESIGNS)
    server.add_argument("directory", type=Path)
    load = roles.add_parser("load")
    load.add_argument("port", type=int)
    load.add_argument("connections", type=int)
    load.add_argument("seconds", type=float)
    asked = parser.parse_args()
    if asked.role == "server":
        run_server(asked.design, asked.directory)
    elif asked.role == "load":
        run_load(asked.port, asked.connections, asked.seconds)
    else:
        compare()


if __name__ == "__main__":
    main()
