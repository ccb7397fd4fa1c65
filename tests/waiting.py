"""Waiting for what must come true, instead of sleeping."""

import time
from collections.abc import Callable
from typing import Any


def eventually(
    condition: Callable[[], Any], what: str = "the condition", patience: float = 30.0
) -> Any:
    """The condition's value once it is true. Fails after `patience` seconds, far past any need."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < patience:
        value = condition()
        if value:
            return value
        time.sleep(min(max(0.01, waited / 20), 0.1))  # between two looks, which may cost
    raise AssertionError(f"{what} did not come true in {patience:.0f} s")
