import http.client
import logging
import threading
import urllib.request
from dataclasses import dataclass
from typing import Any

import pytest

from shop.broker import free_port
from shop.watch import HealthServer, Watch
from tests import logs

LOGGER = "shop.watch"


@dataclass
class Container:
    """What the watch sees of one."""

    group: str
    trouble: str | None = None

    def stalled(self, _after: float) -> None:
        return None


def test_groups_that_lack_the_same_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    containers: Any = [Container("email"), Container("fraud"), Container("users")]
    watch = Watch(containers, 300.0)
    watch.look()
    assert logs.messages(caplog, LOGGER) == []

    for container in containers[:2]:
        container.trouble = "no broker can be reached"
    containers[2].trouble = "database users is not available"
    watch.look()
    watch.look()
    assert logs.messages(caplog, LOGGER) == [
        "not ready: email, fraud: no broker can be reached",
        "not ready: users: database users is not available",
    ]

    for container in containers:
        container.trouble = None
    watch.look()
    assert logs.messages(caplog, LOGGER)[2:] == ["ready again: email, fraud, users"]


@pytest.mark.parametrize(("error", "lines"), [(ConnectionResetError, 0), (ValueError, 1)])
def test_who_asks_and_goes_is_not_told_of_and_what_fails_is_one_line(
    error: type[Exception], lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    asked = threading.Event()

    def page(_accept: str) -> tuple[bytes, str]:
        asked.set()
        raise error("gone")

    port = free_port()
    server = HealthServer("127.0.0.1", port, None, page)
    with pytest.raises((OSError, http.client.HTTPException)):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")
    server.close()

    assert asked.is_set()
    assert [record.levelname for record in logs.records(caplog, LOGGER)] == ["ERROR"] * lines
