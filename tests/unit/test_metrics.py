"""Gauges of databases, and what keeps metrics small and harmless."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from shop import telemetry
from shop.background import Background
from shop.databases import Databases
from shop.db.database import Database
from shop.db.outbox import write_outbox
from shop.db.tables import outbox
from shop.deadletters.model import LetterRow, State
from shop.gauges import show_letters, show_outboxes
from shop.kafka.lag import Logs
from shop.kafka.metrics import MOST_TOPICS, Histogram
from shop.kafka.offsets import Bounds
from shop.kafka.outbound import OutboundRecord
from shop.kafka.store import Partition
from shop.metrics import Metrics
from shop.settings import Settings
from tests.scraping import Scrape, parsed
from tests.waiting import eventually


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metrics]:
    monkeypatch.setattr("shop.background.ASK_EVERY_S", 0.01)
    metrics = Metrics("test")
    yield metrics
    metrics.close()


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[Databases]:
    databases = Databases(Settings(data_dir=tmp_path))
    yield databases
    databases.close()


def read(metrics: Metrics) -> Scrape:
    return parsed(*metrics.page(""))


def test_an_outbox_shows_what_waits_how_long_and_what_is_parked(
    metrics: Metrics, databases: Databases
) -> None:
    database = databases.of("fraud")
    show_outboxes(metrics, [database, databases.of("log")])

    def shown(name: str) -> float | None:
        return read(metrics).one(f"shop_outbox_{name}", database="fraud")

    eventually(lambda: shown("records") == 0)
    assert (shown("age_seconds"), shown("parked")) == (0, 0)
    hour_ago = int((time.time() - 3600) * 1000)
    with database.write() as connection:
        write_outbox(connection, [OutboundRecord("T", "k", b"v", []) for _ in range(3)])
        first, second = (update(outbox).where(outbox.c.id == number) for number in (1, 2))
        connection.execute(first.values(parked="too large", created_at=0))
        connection.execute(second.values(created_at=hour_ago))
    eventually(lambda: shown("records") == 2)
    assert shown("parked") == 1
    assert 3600 <= (shown("age_seconds") or 0) < 4000, "of what waits, not of what is parked"
    assert read(metrics).one("shop_outbox_records", database="log") == 0


def test_a_database_that_is_away_has_no_series_and_the_others_have(
    metrics: Metrics, databases: Databases, tmp_path: Path
) -> None:
    (tmp_path / "no.db").mkdir()  # no database can be opened there
    show_outboxes(metrics, [Database(f"sqlite:///{tmp_path / 'no.db'}"), databases.of("log")])
    eventually(lambda: read(metrics).one("shop_outbox_records") == 0)


def test_waiting_letters_are_shown_by_group_and_those_of_strangers_as_one(
    metrics: Metrics, databases: Databases
) -> None:
    letters = databases.of("deadletters")
    rows = [("1", "fraud"), ("2", "fraud"), ("3", "JavaService"), ("4", None), ("5", "Other")]
    with letters.write() as connection:
        for number, (id_, group) in enumerate([*rows, ("6", "users")]):
            connection.execute(
                LetterRow.__table__.insert().values(  # type: ignore[attr-defined]
                    id=id_, consumer_group=group, failures=1, first_at=1, last_at=1,
                    state=State.DISCARDED if group == "users" else State.WAITING,
                    letter_partition=0, letter_offset=number, headers=b"\x90",
                )
            )  # fmt: skip
    show_letters(metrics, letters)

    def waiting(group: str) -> float | None:
        return read(metrics).one("shop_deadletters_waiting", group=group)

    eventually(lambda: waiting("fraud") == 2)
    assert (waiting("_OTHER"), waiting("users"), waiting("pix")) == (3, 0, 0)


def test_topics_beyond_a_number_are_one_series(metrics: Metrics) -> None:
    for number in range(MOST_TOPICS + 50):
        metrics.listeners.count("log", f"T{number}", "handled")
    handled = [
        value
        for name, labels, value in read(metrics).samples
        if name == "shop_listener_records_total" and labels["outcome"] == "handled"
    ]
    assert len(handled) == MOST_TOPICS + 1
    assert max(handled) == 50
    assert sum(handled) == MOST_TOPICS + 50


def test_each_value_is_in_the_bucket_that_ends_at_or_above_it() -> None:
    histogram = Histogram("h", "", (1.0, 2.0, 5.0))
    series = histogram.series(group="g")
    assert histogram.values() == []
    for values in ([], [3.0, 1.0, 2.0, 5.0, 5.1], [0.5], [-0.1]):
        series.record(values)
    (found,) = histogram.values()
    assert found.counts == (3, 1, 2, 1)
    assert (found.total, found.least, found.most) == (pytest.approx(16.6), 0.0, 5.1)


@pytest.mark.parametrize(
    ("settings", "variables"),
    [(Settings(metrics=False), {}), (Settings(), {"OTEL_SDK_DISABLED": "true"})],
)
def test_metrics_can_be_turned_off(
    settings: Settings, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert telemetry.start_metrics(Settings(), "test") is not None
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert telemetry.start_metrics(settings, "test") is None


def test_lag_and_age_are_those_of_the_position_now() -> None:
    p = Partition("T", 0)
    logs = Logs(at=1000.0, bounds={p: Bounds(10, 30)}, timestamps={(p, 20): 900_000})
    assert [logs.lag(p, at) for at in (0, 10, 20, 30, 35)] == [20, 20, 10, 0, 0]
    assert logs.oldest(p, 20, now=1010.0) == 110.0
    assert logs.oldest(p, 25, now=1010.0) == 100.0, "not older than it was"
    assert logs.oldest(p, 30, now=1010.0) == 0.0
    assert logs.oldest(p, 15, now=1010.0) is None, "nobody looked there"
    assert logs.lag(Partition("T", 1), 0) is None
    assert logs.oldest(Partition("T", 1), 0, now=1010.0) is None


def test_who_wants_to_know_never_waits_and_old_answers_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shop.background.ASK_EVERY_S", 0.01)
    answers = threading.Semaphore(0)
    fails = False

    def ask() -> str:
        answers.acquire()
        if fails:
            raise OSError("away")
        return "known"

    background = Background("test", ask)
    assert background.last is None, "while it is asked"
    answers.release()
    eventually(lambda: background.last == "known")
    fails = True
    for _ in range(3):
        answers.release()
    assert background.last == "known", "for a while"
    monkeypatch.setattr("shop.background.STALE_S", 0.0)
    assert background.last is None
    background.stop()
    answers.release()
