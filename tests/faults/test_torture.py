"""`shop torture` as a user has it: it ends clean, and says so when something was lost."""

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.faults.harness import PATIENCE_S
from tests.waiting import eventually


@contextmanager
def torture(tmp_path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """As a process; its data directory is in `tmp_path`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SHOP_", "OTEL_"))}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "shop.cli", "torture", *options],
        env=inherited | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_tortured_shop_loses_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    options = ("--minutes", "0.1", "--orders", "40", "--kills", "3", "--seed", "1")
    with torture(tmp_path, *options) as process:
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert "shop torture --seed 1 --minutes 0.1 --orders 40 --kills 3 --nodes 1" in said
    assert "40 sent, 40 accepted, 40 decided" in said
    assert sum(int(count) for count in re.findall(r"^(?:killed|frozen) +(\d+)", said, re.M)) == 3
    assert "Nothing was lost" in said
    assert list(tmp_path.iterdir()) == []


def test_a_decision_that_is_lost_is_found_and_its_data_is_kept(tmp_path: Path) -> None:
    options = ("--minutes", "0.1", "--orders", "20", "--kills", "0")
    with torture(tmp_path, *options) as process:
        lost = eventually(lambda: lose_a_decision(tmp_path), "a decision", PATIENCE_S)
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, said
    assert lost in said
    assert "Nothing was lost" not in said
    (kept,) = tmp_path.iterdir()
    assert f"All is kept in {kept}" in said


def lose_a_decision(tmp_path: Path) -> str | None:
    """The id of the order; None while none is decided."""
    for file in tmp_path.glob("*/fraud.db"):
        with closing(sqlite3.connect(file, timeout=30)) as connection:
            try:
                lost = "DELETE FROM decision RETURNING order_id"
                rows = connection.execute(lost).fetchall()
                connection.commit()
            except sqlite3.OperationalError:  # no table yet
                continue
            if rows:
                return str(rows[0][0])
    return None
