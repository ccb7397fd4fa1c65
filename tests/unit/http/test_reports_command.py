"""`shop reports`, against a real API; how far batch is, a test says."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from shop.cli import app
from shop.cli.errors import CommandFailed
from shop.reports.model import ReportRun
from tests.unit.http.test_reports import UUID, Api, Progress
from tests.waiting import eventually


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    running = Api(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def shop(api: Api, tmp_path: Path) -> Callable[..., Any]:
    environment = {
        "SHOP_DATA_DIR": str(tmp_path),
        "SHOP_HTTP__PORT": api.url.rpartition(":")[2],
    }
    return lambda *words: CliRunner().invoke(app, ["reports", *words], env=environment)


@contextmanager
def batch(api: Api, *steps: Callable[[str], None]) -> Iterator[None]:
    """Takes these steps, one after the other, for the run that comes."""

    def newest() -> Any:
        with api.database.read() as connection:
            return connection.scalar(select(ReportRun.id))

    def work() -> None:
        run_id = eventually(newest)
        for step in steps:
            step(run_id)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def test_generate_waits_until_all_reports_are_written(
    api: Api, shop: Callable[..., Any], tmp_path: Path
) -> None:
    def finished(run_id: str) -> None:
        api.requests.known[run_id] = Progress(2, 2, finished=True)

    with batch(api, lambda run_id: api.written(run_id, 1), finished, lambda r: api.written(r, 2)):
        result = shop("generate")
    assert result.exit_code == 0
    assert result.stdout == f"2 reports written to {tmp_path / 'reports'}\n"


def test_without_users_there_is_nothing_to_wait_for(api: Api, shop: Callable[..., Any]) -> None:
    def finished(run_id: str) -> None:
        api.requests.known[run_id] = Progress(0, 0, finished=True)

    with batch(api, finished):
        result = shop("generate")
    assert result.stdout.startswith("0 reports written to ")


def test_generate_without_waiting_says_where_its_progress_is(
    api: Api, shop: Callable[..., Any]
) -> None:
    result = shop("generate", "--no-wait")
    url = result.stdout.split()[1]
    assert api.client.get(url).json()["state"] == "requested"


def test_a_refused_run_fails_with_the_reason(api: Api, shop: Callable[..., Any]) -> None:
    def refused(run_id: str) -> None:
        api.requests.known[run_id] = Progress(0, 0, finished=True, refused="no such topic")

    with batch(api, refused):
        result = shop("generate")
    assert isinstance(result.exception, CommandFailed)
    assert str(result.exception) == "the reports are refused: no such topic"


def test_show_prints_a_report_or_where_its_page_is(api: Api, shop: Callable[..., Any]) -> None:
    api.files.write(UUID, {".txt": "Created for Ana\n", ".html": "<p>"})
    assert shop("show", UUID).stdout == "Created for Ana\n"
    url = shop("show", UUID, "--html").stdout.strip()
    assert api.client.get(url).text == "<p>"
    assert "no report of this user" in str(shop("show", "somebody", "--html").exception)
