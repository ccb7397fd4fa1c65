import logging
from dataclasses import dataclass
from typing import Any

import pytest

from shop.watch import Watch


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
    assert caplog.messages == []

    for container in containers[:2]:
        container.trouble = "no broker can be reached"
    containers[2].trouble = "database users is not available"
    watch.look()
    watch.look()
    assert caplog.messages == [
        "not ready: email, fraud: no broker can be reached",
        "not ready: users: database users is not available",
    ]

    for container in containers:
        container.trouble = None
    watch.look()
    assert caplog.messages[2:] == ["ready again: email, fraud, users"]
