"""`shop torture` as a user has it: it ends clean, and says so when something was lost."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from shop.databases import Databases
from shop.settings import Settings
from tests.backends import Backend, environment_of_databases, rows
from tests.faults.harness import PATIENCE_S
from tests.waiting import eventually


@contextmanager
def torture(tmp_path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """As a process; its data directory is in `tmp_path`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SHOP_", "OTEL_"))}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "shop.cli", "torture", *options],
        env=inherited | {"TMPDIR": str(tmp_path)} | environment_of_databases(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_tortured_shop_loses_nothing_and_leaves_nothing_behind(
    backend: Backend, tmp_path: Path
) -> None:
    options = ("--minutes", "0.1", "--orders", "40", "--kills", "3", "--seed", "1")
    with torture(tmp_path, *options) as process:
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert "shop torture --seed 1 --minutes 0.1 --orders 40 --kills 3 --nodes 1" in said
    assert "40 sent, 40 accepted, 40 decided" in said
    assert sum(int(count) for count in re.findall(r"^(?:killed|frozen) +(\d+)", said, re.M)) == 3
    assert "Nothing was lost" in said
    assert list(tmp_path.iterdir()) == []
    if backend.postgres is not None:
        assert fraud_schemas(tmp_path) == []


def test_a_decision_that_is_lost_is_found_and_its_data_is_kept(
    backend: Backend, tmp_path: Path
) -> None:
    options = ("--minutes", "0.1", "--orders", "20", "--kills", "0")
    with torture(tmp_path, *options) as process:
        lost = eventually(lambda: lose_a_decision(backend, tmp_path), "a decision", PATIENCE_S)
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1, said
    assert lost in said
    assert "Nothing was lost" not in said
    (kept,) = tmp_path.iterdir()
    assert f"All is kept in {kept}" in said
    if backend.postgres is not None:
        (schema,) = fraud_schemas(tmp_path)
        assert f"in the schemas {schema.removesuffix('fraud')}*" in said


def fraud_schemas(tmp_path: Path) -> list[str]:
    """Of tortures, on the PostgreSQL of this test."""
    query = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'torture%fraud'"
    with closing(Databases(Settings(data_dir=tmp_path))) as databases:
        return [name for (name,) in rows(databases.existing("log"), query)]


def lose_a_decision(backend: Backend, tmp_path: Path) -> str | None:
    """The id of the order; None while none is decided."""
    settings = Settings(data_dir=next(tmp_path.iterdir(), tmp_path))
    if backend.postgres is not None:
        for schema in fraud_schemas(tmp_path):
            prefix = schema.removesuffix("fraud")
            database = settings.database.model_copy(update={"schema_prefix": prefix})
            settings = settings.model_copy(update={"database": database})
    with closing(Databases(settings)) as databases:
        lost = rows(databases.existing("fraud"), "DELETE FROM decision RETURNING order_id")
        return str(lost[0][0]) if lost else None
