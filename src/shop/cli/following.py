"""Orders followed from the API to their mail, and shown on the way."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import typer
from rich.live import Live
from rich.table import Table

from shop.cli.api import Accepted, Api
from shop.cli.errors import CommandFailed
from shop.cli.orders import random_amount, random_email
from shop.cli.stack import Stack
from shop.email.server import MailOnDisk, mails

_PATIENCE_S = 60.0


@dataclass
class Way:
    """How far an order has come. Times in milliseconds: the first is that of the answer, the
    others count from when the order was stored."""

    order: Accepted
    accepted_ms: float
    status: str = "accepted"
    created: float = 0.0
    decided_ms: float | None = None
    mailed_ms: float | None = None
    mail: MailOnDisk | None = None

    @property
    def through(self) -> bool:
        return self.decided_ms is not None and self.mail is not None

    def look(self, api: Api) -> None:
        seen = api.order(self.order.id)
        self.status, self.created = seen["status"], _moment(seen["createdAt"])
        if seen["decidedAt"]:
            self.decided_ms = (_moment(seen["decidedAt"]) - self.created) * 1000

    def mailed(self, mail: MailOnDisk) -> None:
        self.mail = mail
        self.mailed_ms = (mail.path.stat().st_mtime - self.created) * 1000


def follow(stack: Stack, count: int) -> list[Way]:
    """Send the orders and watch them until all are through; raises CommandFailed after a while."""
    api = Api(stack.settings)
    ways: list[Way] = []
    deadline = time.monotonic() + _PATIENCE_S
    new_mails = _NewMails(stack.settings.data_dir / "mail")
    with _shown(ways) as show:
        for _ in range(count):
            began = time.perf_counter()
            order = api.send_order(random_email(), random_amount())
            ways.append(Way(order, (time.perf_counter() - began) * 1000))
            show()
        while not all(way.through for way in ways):
            if time.monotonic() > deadline:
                raise CommandFailed(_why_not(ways, stack.settings.data_dir / "logs"))
            stack.supervisor.check()
            for way in ways:
                if way.decided_ms is None:
                    way.look(api)
            for mail in new_mails.read():
                for way in ways:
                    if mail.correlation_id.startswith(way.order.correlation_id):
                        way.mailed(mail)
            show()
            time.sleep(0.05)
    return ways


class _NewMails:
    """Reads a Maildir again only when there is another mail in it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen = -1

    def read(self) -> Iterator[MailOnDisk]:
        new = self._directory / "new"
        there = sum(1 for _ in new.iterdir()) if new.exists() else 0
        if there != self._seen:
            self._seen = there
            yield from mails(self._directory)


@contextmanager
def _shown(ways: list[Way]) -> Iterator[Callable[[], None]]:
    """A live table on a terminal; elsewhere a line per order as soon as it is through."""
    if sys.stdout.isatty():
        with Live(_table(ways), refresh_per_second=20) as live:
            yield lambda: live.update(_table(ways))
        return
    said: set[str] = set()

    def show() -> None:
        for way in ways:
            if way.through and way.order.id not in said:
                said.add(way.order.id)
                typer.echo(
                    f"{way.order.id}  {way.order.email}  {way.order.amount}  {way.status} after "
                    f"{way.decided_ms:.0f} ms, mailed after {way.mailed_ms:.0f} ms"
                )

    yield show


def _table(ways: list[Way]) -> Table:
    table = Table("order", "customer", box=None, pad_edge=False)
    for heading in ("amount", "accepted", "decided", "", "mailed"):
        table.add_column(heading, justify="left" if not heading else "right")
    colours = {"approved": "green", "rejected": "red", "accepted": "dim"}
    for way in ways:
        status = f"[{colours.get(way.status, '')}]{way.status}"
        times = (_ms(way.accepted_ms), _ms(way.decided_ms), status, _ms(way.mailed_ms))
        table.add_row(way.order.id[:8], way.order.email, way.order.amount, *times)
    return table


def _why_not(ways: list[Way], logs: Path) -> str:
    stuck = [
        f"{way.order.id} is {'not decided' if way.decided_ms is None else 'not mailed'}"
        for way in ways
        if not way.through
    ]
    return (
        f"{len(stuck)} of {len(ways)} orders are not through after {_PATIENCE_S:g} s "
        f"({', '.join(stuck)}); {logs.absolute()} says more"
    )


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} ms"
