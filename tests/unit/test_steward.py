import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shop.db.database import Database
from shop.db.steward import Steward
from shop.kafka.errors import StoreUnavailable
from tests.backends import Backend
from tests.waiting import eventually

Start = Callable[..., Steward]


@pytest.fixture
def database(backend: Backend, tmp_path: Path) -> Iterator[Database]:
    database = backend.open("email", tmp_path)
    yield database
    database.close()


@pytest.fixture
def start(database: Database) -> Iterator[Start]:
    started: list[Steward] = []

    def start(step: Callable[[threading.Event], bool], every_s: float = 0.01) -> Steward:
        steward = Steward(database, "office", step, every_s=every_s)
        steward.start()
        started.append(steward)
        return steward

    yield start
    for steward in started:
        assert steward.stop(30)


def test_one_of_two_works_and_the_other_after_it_stopped(start: Start) -> None:
    calls: list[str] = []
    first = start(lambda _: bool(calls.append("first")))
    eventually(lambda: calls)
    start(lambda _: bool(calls.append("second")))
    eventually(lambda: len(calls) > 20)
    assert set(calls) == {"first"}

    assert first.stop(30)

    eventually(lambda: "second" in calls)


def test_what_fails_is_tried_again(start: Start) -> None:
    calls: list[int] = []

    def fail_twice(_: threading.Event) -> bool:
        calls.append(1)
        if len(calls) == 1:
            raise StoreUnavailable("locked")
        if len(calls) == 2:
            raise ValueError("a mistake")
        return False

    start(fail_twice)

    eventually(lambda: len(calls) > 2)


def test_it_goes_on_at_once_while_there_is_more_and_after_a_commit(
    start: Start, database: Database
) -> None:
    calls: list[int] = []

    def thrice(_: threading.Event) -> bool:
        calls.append(1)
        return len(calls) < 3

    start(thrice, every_s=3600)
    eventually(lambda: len(calls) == 3)

    with database.write():
        pass

    eventually(lambda: len(calls) == 4)
