"""The HTTP API of the shop, as the commands use it. One connection, kept open; not thread-safe."""

import http.client
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

from shop.cli.errors import CommandFailed

if TYPE_CHECKING:
    from shop.settings import Settings

_AGAIN_S = 10.0
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class NoAnswer(CommandFailed):
    """Nobody answered, or not to the end."""


@dataclass(frozen=True)
class Accepted:
    """An order that the API has answered for."""

    id: str
    email: str
    amount: str
    correlation_id: str


class Api:
    """Raises CommandFailed in one line when the API does not answer, or says no."""

    def __init__(self, settings: "Settings") -> None:
        self._host = _ANYWHERE.get(settings.http.host, settings.http.host)
        self._port = settings.http.port
        self._token = settings.admin_token and settings.admin_token.get_secret_value()
        self._answered = False  # ever; else there is no API to wait for
        self._connection = http.client.HTTPConnection(self._host, self._port, timeout=10)

    def send_order(self, email: str, amount: str) -> Accepted:
        """`amount` is sent as it stands, a JSON number. Sent again for some seconds while nobody
        answers: the key makes it one order."""
        body = f'{{"email": {json.dumps(email)}, "amount": {amount}}}'
        key = str(uuid4())
        deadline = time.monotonic() + _AGAIN_S
        while True:
            try:
                headers, _ = self.ask("POST", "/orders", body, key=key)
                break
            except NoAnswer:
                if not self._answered or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        identity = headers["Location"].rpartition("/")[2]
        return Accepted(identity, email, amount, headers["X-Correlation-Id"])

    def order(self, identity: str, wait: float = 0) -> dict[str, Any]:
        """The order; as soon as it is decided, but after `wait` seconds in any case."""
        query = f"?wait={wait:g}" if wait else ""
        _, order = self.ask("GET", f"/orders/{quote(identity, safe='')}{query}", wait=wait)
        return order

    def text(self, path: str) -> str:
        """What is there, as text."""
        response, answer = self._exchange("GET", path, None, 0, {"Accept": "text/plain"})
        if response.status >= 400:
            self._content(response, answer)
        return answer.decode()

    def url(self, path: str) -> str:
        return f"http://{self._host}:{self._port}{path}"

    def ask(
        self, method: str, path: str, body: str | None = None, wait: float = 0, key: str = ""
    ) -> tuple[http.client.HTTPMessage, dict[str, Any]]:
        """The headers and the JSON content of the answer. `body` is JSON, sent as it stands;
        `wait`: for how many seconds the API may take its time; `key`: an Idempotency-Key."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if key:
            headers["Idempotency-Key"] = key
        response, answer = self._exchange(method, path, body, wait, headers)
        return response.headers, self._content(response, answer)

    def _exchange(
        self, method: str, path: str, body: str | None, wait: float, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            if self._connection.sock is None:
                self._connection.connect()
            self._connection.sock.settimeout(10 + wait)
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise NoAnswer(
                f"no answer from the API at http://{self._host}:{self._port} "
                f"({_reason(error)}); `shop up` starts it"
            ) from None
        self._answered = True
        return response, answer

    def _content(self, response: http.client.HTTPResponse, answer: bytes) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(answer)
        except ValueError:
            where = f"{self._host}:{self._port}"
            raise CommandFailed(f"what answers at {where} is not the shop") from None
        if response.status >= 400:
            raise CommandFailed(content.get("detail") or content.get("title") or response.reason)
        return content


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
