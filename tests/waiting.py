"""Waiting for what must come true, instead of sleeping."""

import time
from collections.abc import Callable
from typing import Any


def eventually(
    condition: Callable[[], Any], what: str = "the condition", patience: float = 30.0
) -> Any:
    """The condition's value once it is true. Fails after `patience` seconds, far past any need."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)  # between two looks
    raise AssertionError(f"{what} did not come true in {patience:.0f} s")
