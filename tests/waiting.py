"""Waiting for what must come true, instead of sleeping."""

import faulthandler
import sys
import time
from collections.abc import Callable
from typing import Any


def eventually(
    condition: Callable[[], Any], what: str = "the condition", patience: float = 60.0
) -> Any:
    """The condition's value once it is true. Fails after `patience` seconds, far past any need, and
    says where each thread is by then."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < patience:
        value = condition()
        if value:
            return value
        time.sleep(0.01)  # between two looks
    faulthandler.dump_traceback(sys.__stderr__)
    raise AssertionError(f"{what} did not come true in {waited:.0f} s")
