"""What the demo shows beside the orders: a timeline, reports of all users, payments."""

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

from shop.cli import reports
from shop.cli.api import Api
from shop.cli.errors import CommandFailed
from shop.cli.stack import Stack
from shop.cli.timeline import drawing
from shop.reports.content import NO_ORDERS

_PATIENCE_S = 60.0
_HOPS = 3  # of an order: placed, decided, its mail asked for


class Tour:
    """Each part gives the lines to show. Raises CommandFailed or GaveUp when it takes too long."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._api = Api(stack.settings)
        self._deadline = time.monotonic() + _PATIENCE_S

    def timeline(self, order_id: str) -> Iterator[str]:
        path = f"/orders/{quote(order_id, safe='')}/timeline"
        while len((found := self._api.ask("GET", path)[1])["hops"]) < _HOPS:
            self._look("the timeline")
        yield "The way of that order (`shop orders timeline`):"
        yield from (f"  {line}" for line in drawing(found, self._stack.settings.tracing.url))

    def reports(self, email: str) -> Iterator[str]:
        path = f"/users?{urlencode({'email': email})}"
        while not (users := self._api.ask("GET", path)[1]["users"]):
            self._look("the customer")
        text = NO_ORDERS
        while NO_ORDERS in text:  # what writes them may not have heard of the order yet
            self._look("the reports")
            _, run = self._api.ask("POST", "/reports", key=str(uuid4()))
            run = reports.follow(self._api, run["id"], lambda: self._look("the reports"))
            text = self._api.text(f"/users/{users[0]['uuid']}/report")
        yield f"Reports of all {run['written']} users are written. One of them:"
        yield from (f"  {line}".rstrip() for line in text.splitlines())

    def payments(self) -> Iterator[str]:
        for key in ("ana", "bia"):
            self._api.ask("POST", "/pix/keys", json.dumps({"chave": key}))
        yield "Two Pix payments, to a key that is registered and to one that is not:"
        for target, amount in (("bia", "10.50"), ("nobody", "99.90")):
            payment = self._payment("ana", target, amount)
            yield f"  {payment['identifier']}  ana -> {target}  {amount}  {payment['status']}"

    def _payment(self, source: str, target: str, amount: str) -> dict[str, Any]:
        body = json.dumps({"chaveOrigem": source, "chaveDestino": target, "valor": amount})
        headers, _ = self._api.ask("POST", "/pix", body, key=str(uuid4()))
        while True:
            _, payment = self._api.ask("GET", f"{headers['Location']}?wait=1", wait=1)
            if payment["status"] != "EM_PROCESSAMENTO":
                return payment
            self._look("the payment")

    def _look(self, what: str) -> None:
        """Between two looks: whether all still run, and there is time left."""
        self._stack.supervisor.check()
        if time.monotonic() > self._deadline:
            logs = (self._stack.settings.data_dir / "logs").absolute()
            raise CommandFailed(f"{what} did not come within {_PATIENCE_S:g} s; {logs} says more")
        time.sleep(0.05)
