"""The log of a process, as it stands on its stderr."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

BEGIN = """
import gc, logging, sys, threading, warnings
from shop import process_log
from shop.settings import Settings
process_log.configure(Settings().log, "listeners", sys.stderr)
log = logging.getLogger("shop.somewhere")
"""


def said(program: str, **settings: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", BEGIN + program],
        env=os.environ | {f"SHOP_LOG__{name.upper()}": value for name, value in settings.items()},
        capture_output=True,
        text=True,
    )
    return ended.stderr


def lines(program: str, **settings: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said(program, **settings).splitlines()]


ADDRESSES = """
log.warning("%s failed: %s", "email", '550 "alice.smith@example.com" is unknown')
log.warning("GET /users/alice.smith%40example.com: 404")
log.warning(r"not read: alice.smith\\u0040example.com")
try:
    raise ValueError("first line\\nalice.smith@example.com: no such box")
except ValueError:
    log.exception("not mailed")
"""


def test_no_line_tells_an_address_also_not_in_an_error_of_somebody_else() -> None:
    found = lines(ADDRESSES)

    assert [line["event"] for line in found] == [
        'email failed: 550 "a…@example.com" is unknown',
        "GET /…@example.com: 404",
        "not read: a…@example.com",
        "not mailed",
    ]
    assert found[3]["exception"].endswith("ValueError: first line\na…@example.com: no such box")


UNFORESEEN = """
from shop.cli.errors import report
from shop.watch import GroupDied
report(GroupDied("group fraud cannot handle it:\\nalice.smith@example.com: no box"), log=log)
try:
    raise KeyError("(alice.smith@example.com) is there")
except KeyError as error:
    report(error, log=log)
"""


def test_why_a_process_ends_is_a_line_of_its_log() -> None:
    foreseen, unforeseen = lines(UNFORESEEN)

    assert foreseen["event"] == "group fraud cannot handle it: a…@example.com: no box"
    assert foreseen["level"] == "error"
    assert unforeseen["event"] == "unexpected KeyError: '(a…@example.com) is there'"
    assert unforeseen["level"] == "critical"
    assert "Traceback" in unforeseen["exception"]
    assert "alice" not in unforeseen["exception"]


def test_addresses_are_told_to_who_asks_for_them() -> None:
    assert "alice.smith" in lines(ADDRESSES, personal_data="full")[0]["event"]


def test_on_a_terminal_a_traceback_does_not_show_values_of_variables() -> None:
    program = """
def mail(address, password):
    raise ValueError("no such box")
try:
    mail("alice.smith@example.com", "hush" * 2)
except ValueError:
    log.exception("not mailed")
"""
    text = said(program, format="console")

    assert "in mail" in text
    assert "ValueError: no such box" in text
    assert "alice" not in text.replace('mail("a…@example.com"', "")
    assert "hushhush" not in text


@pytest.mark.parametrize(
    ("program", "event", "level"),
    [
        ("1 / 0", "unexpected error", "critical"),
        (
            "t = threading.Thread(target=lambda: 1 / 0, name='relay'); t.start(); t.join()",
            "unexpected error in thread relay",
            "critical",
        ),
        (
            "class A:\n    def __del__(self): 1 / 0\nA()",
            "exception ignored in",
            "error",
        ),
    ],
)
def test_what_nobody_caught_is_a_line_with_its_traceback(
    program: str, event: str, level: str
) -> None:
    [line] = lines(program)

    assert line["event"].startswith(event)
    assert (line["level"], line["process"]) == (level, "listeners")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


def test_a_warning_of_a_library_is_a_line() -> None:
    [line] = lines("warnings.warn('old way', UserWarning)")

    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "UserWarning: old way" in line["event"]
