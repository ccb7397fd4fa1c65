"""A customer that posts orders without pause, and remembers each that was answered."""

import http.client
import json
import random
import threading
import time
from typing import NamedTuple
from uuid import UUID

from shop.settings import Settings

CUSTOMERS = 50
_ANSWER_S = 15.0  # longer than any process is frozen
_AGAIN_S = 0.1


class Order(NamedTuple):
    id: str
    email: str
    amount: str


class Orders:
    """A thread that posts `count` orders, `rate` a second. One that gets no answer, or that the
    API is not able to take now, is sent again under the same id, as a client does.

    `accepted`, `sent`, `repeated` and `refused` may be read by any thread."""

    def __init__(self, settings: Settings, count: int, rate: float, seed: int) -> None:
        self.accepted: dict[str, Order] = {}
        self.sent = 0
        self.repeated = 0
        self.refused: list[str] = []  # what the API answered, where it was not a 202
        self._where = (settings.http.host, settings.http.port)
        self._count = count
        self._rate = rate
        self._draw = random.Random(f"orders {seed}")
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name="orders", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether each was sent and answered."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Send no more; what is on its way is waited for."""
        self._enough.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection(*self._where, timeout=_ANSWER_S)
        began = time.monotonic()
        for number in range(self._count):
            if self._enough.wait(max(0.0, began + number / self._rate - time.monotonic())):
                break
            self._post(connection, self._next())
        connection.close()

    def _next(self) -> Order:
        return Order(
            str(UUID(int=self._draw.getrandbits(128), version=4)),
            f"customer{self._draw.randrange(CUSTOMERS)}@example.com",
            f"{self._draw.randrange(100, 500_100) / 100:.2f}",
        )

    def _post(self, connection: http.client.HTTPConnection, order: Order) -> None:
        self.sent += 1
        while True:
            status, answer = self._ask(connection, order)
            if status == 202:
                self.accepted[order.id] = order
                return
            if status is not None and status < 500:
                self.refused.append(f"{status} {answer}")
                return
            if self._enough.wait(_AGAIN_S):
                return
            self.repeated += 1

    def _ask(self, connection: http.client.HTTPConnection, order: Order) -> tuple[int | None, str]:
        """Status and content of the answer; no status when nobody answered."""
        body = json.dumps(order._asdict())
        try:
            connection.request("POST", "/orders", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            connection.close()
            return None, ""
