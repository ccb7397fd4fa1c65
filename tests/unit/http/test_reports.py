"""Asking for reports, their progress and the reports themselves, on a real server and database."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import select, update

from shop.db.database import Database
from shop.db.schema import upgrade
from shop.db.tables import outbox
from shop.http.app import create_app
from shop.http.moment import moment
from shop.http.server import HttpServer
from shop.kafka.wire import EVENT_ID, Headers
from shop.reports.api import reports_api
from shop.reports.content import content_of
from shop.reports.files import ReportFiles
from shop.reports.listeners import run_of
from shop.reports.model import ReportRun
from shop.reports.page import as_page
from shop.reports.reading import RunReader
from shop.reports.requests import RunDesk
from shop.topics import SEND_MESSAGE_TO_ALL_USERS, USER_GENERATE_READING_REPORT

UUID = "85268c5a-2b6e-4f0a-a7b1-6f3a3e0c9d11"


@dataclass
class Progress:
    total: int | None
    sent: int
    finished: bool = False
    refused: str | None = None


class Requests:
    """What batch would tell, as a test wants it."""

    def __init__(self) -> None:
        self.known: dict[str, Progress] = {}

    async def progress(self, fan_out_id: str) -> Progress | None:
        return self.known.get(fan_out_id)

    def close(self) -> None: ...


class Api:
    def __init__(self, folder: Path, admin_token: str | None = None) -> None:
        self.database = Database(f"sqlite:///{folder / 'reports.db'}")
        upgrade(self.database, "shop.reports")
        self.files = ReportFiles(folder / "reports")
        self.requests = Requests()
        reader = RunReader(self.database, self.requests)
        app = create_app(
            reports_api(RunDesk(self.database), reader, self.files), admin_token=admin_token
        )
        self._server = HttpServer(app, port=0)
        started = threading.Event()
        self._thread = threading.Thread(target=self._server.run, args=(started.set,))
        self._thread.start()
        assert started.wait(20)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def ask(self, **headers: str) -> Any:
        """A run's id, after POST /reports; headers as names with _ for -."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.client.post("/reports", headers=names)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def run(self, run_id: str) -> Any:
        return self.client.get(f"/reports/{run_id}").json()

    def written(self, run_id: str, count: int) -> None:
        """As the listener counts them."""
        with self.database.write() as connection:
            connection.execute(
                update(ReportRun)
                .where(ReportRun.id == run_id)
                .values(written=count, written_at=1_800_000_000_000)
            )

    def sent(self, run_id: str) -> list[Any]:
        """What waits to be sent under a run's id."""
        with self.database.read() as connection:
            rows = connection.execute(select(outbox)).all()
        return [row for row in rows if (EVENT_ID, run_id.encode()) in _headers(row)]

    def stop(self) -> None:
        self._server.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.client.close()
        self.database.close()


def _headers(row: Any) -> Headers:
    return msgspec.msgpack.decode(row.headers, type=Headers)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    running = Api(tmp_path_factory.mktemp("api"))
    yield running
    running.stop()


@pytest.fixture
def guarded_api(tmp_path: Path) -> Iterator[Api]:
    running = Api(tmp_path, admin_token="secret")
    yield running
    running.stop()


def test_a_request_is_accepted_with_where_its_progress_is(api: Api) -> None:
    answer = api.client.post("/reports")
    run = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/reports/{run['id']}"
    assert answer.headers["x-correlation-id"] == run["correlationId"]
    assert run["correlationId"] == f"ReportController({run['id']})"
    assert api.client.get(answer.headers["location"]).json() == run


def test_the_request_waits_in_the_outbox_as_the_topic_carries_it(api: Api) -> None:
    run_id = api.ask()
    (record,) = api.sent(run_id)
    text, correlation_id = SEND_MESSAGE_TO_ALL_USERS.codec.decode(record.value)
    assert record.topic == SEND_MESSAGE_TO_ALL_USERS.name
    assert record.key == text == USER_GENERATE_READING_REPORT.name
    assert correlation_id.startswith(f"ReportController({run_id})-_{record.topic}(")


def test_the_java_callers_form_asks_anew_each_time(api: Api) -> None:
    answers = [api.client.get("/admin/generate-reports") for _ in range(2)]
    assert {(a.status_code, a.text) for a in answers} == {(200, "Report requests generated")}
    assert answers[0].headers["content-type"].startswith("text/plain")
    runs = [run_of(answer.headers["x-correlation-id"]) or "" for answer in answers]
    assert runs[0] != runs[1]
    for run_id in runs:
        assert len(api.sent(run_id)) == 1
        assert api.run(run_id)["state"] == "requested"


def test_a_clients_correlation_id_begins_the_runs(api: Api) -> None:
    run_id = api.ask(X_Correlation_Id="Web(7)")
    assert api.run(run_id)["correlationId"] == f"Web(7)-ReportController({run_id})"


def test_the_same_key_gives_the_same_run_with_its_first_answer(api: Api) -> None:
    first = api.client.post("/reports", headers={"Idempotency-Key": "k"})
    api.written(first.json()["id"], 3)
    again = api.client.post("/reports", headers={"Idempotency-Key": "k"})
    assert again.json() == first.json()
    assert again.headers["x-correlation-id"] == first.headers["x-correlation-id"]
    assert len(api.sent(first.json()["id"])) == 1
    assert api.ask(Idempotency_Key="other") != first.json()["id"]


def test_one_key_sent_many_times_at_once_is_one_run(api: Api) -> None:
    async def ask_all() -> set[str]:
        async with httpx.AsyncClient(base_url=api.url, timeout=60) as client:
            key = {"Idempotency-Key": "at once"}
            asked = (client.post("/reports", headers=key) for _ in range(30))
            return {answer.json()["id"] for answer in await asyncio.gather(*asked)}

    (run_id,) = asyncio.run(ask_all())
    assert len(api.sent(run_id)) == 1


@pytest.mark.parametrize("key", ["a" * 8 + '-(/)"-' + "b" * 22, "x" * 255, "../.."])
def test_whatever_the_key_the_runs_id_is_one_that_can_be_asked_for(api: Api, key: str) -> None:
    run_id = api.ask(Idempotency_Key=key)
    assert api.run(run_id)["id"] == run_id


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/reports"), ("GET", "/admin/generate-reports")]
)
def test_the_requests_are_for_those_who_run_the_shop(
    guarded_api: Api, method: str, path: str
) -> None:
    def ask(**headers: str) -> int:
        return guarded_api.client.request(method, path, headers=headers).status_code

    assert ask() == ask(Authorization="Bearer wrong") == 401
    with guarded_api.database.read() as connection:
        assert connection.execute(select(outbox)).all() == []
    assert ask(Authorization="Bearer secret") in (200, 202)


def test_a_run_that_nobody_asked_for_is_not_found(api: Api) -> None:
    for run_id in (UUID, "a%00b", "x" * 300):
        assert api.client.get(f"/reports/{run_id}").status_code == 404


@pytest.mark.parametrize(
    ("progress", "written", "state", "users", "requested"),
    [
        (None, 0, "requested", None, None),
        (None, 4, "writing", None, 4),  # another program asks for them
        (Progress(None, 0), 0, "requested", None, 0),
        (Progress(10, 5), 0, "writing", 10, 5),
        (Progress(10, 5), 7, "writing", 10, 7),  # it has sent more than it has noted
        (Progress(10, 10, finished=True), 9, "writing", 10, 10),
        (Progress(10, 10, finished=True), 10, "finished", 10, 10),
        (Progress(10, 10), 10, "writing", 10, 10),
        (Progress(0, 0, finished=True), 0, "finished", 0, 0),
        (Progress(0, 0, finished=True, refused="no such topic"), 0, "refused", 0, 0),
    ],
)
def test_progress_is_what_was_requested_and_what_is_written(
    api: Api, progress: Progress | None, written: int, state: str, users: Any, requested: Any
) -> None:
    run_id = api.ask()
    if progress is not None:
        api.requests.known[run_id] = progress
    if written:
        api.written(run_id, written)
    run = api.run(run_id)
    assert (run["state"], run["users"], run["requested"]) == (state, users, requested)
    assert run["written"] == written
    assert (run["finishedAt"] is not None) == (state == "finished" and written > 0)
    assert run["reason"] == (progress and progress.refused)


@pytest.fixture
def report(api: Api) -> str:
    """The page of a user whose report is there."""
    page = as_page(content_of(UUID, "ana@example.com", moment(0), []))
    api.files.write(UUID, {".txt": f"Created for {UUID}\n", ".html": page})
    return page


def test_a_report_is_text_unless_a_page_is_preferred(api: Api, report: str) -> None:
    def get(accept: str, query: str = "") -> tuple[str, str]:
        answer = api.client.get(f"/users/{UUID}/report{query}", headers={"Accept": accept})
        return answer.headers["content-type"], answer.text

    text = ("text/plain; charset=utf-8", f"Created for {UUID}\n")
    page = ("text/html; charset=utf-8", report)
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    assert get("*/*") == get("text/plain") == get("application/json") == text
    assert get("text/html") == get(browser) == page
    assert get(browser, "?format=text") == text
    assert get("text/plain", "?format=html") == page


def test_a_page_may_do_nothing_but_be_looked_at(api: Api, report: str) -> None:
    headers = api.client.get(f"/users/{UUID}/report?format=html").headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


def test_a_user_without_a_report_is_not_found(api: Api, report: str) -> None:
    for uuid in ("11111111-1111-4111-a111-111111111111", "..%2f..%2freports.db", "%00", "x" * 500):
        answer = api.client.get(f"/users/{uuid}/report")
        assert answer.status_code == 404, uuid
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_format_that_does_not_exist_is_named(api: Api, report: str) -> None:
    answer = api.client.get(f"/users/{UUID}/report?format=pdf")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["parameter"] == "format"
