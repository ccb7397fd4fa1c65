import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shop.db import commits
from shop.db.changes import DataVersion
from shop.db.commits import CommitWatch
from shop.db.database import Database
from shop.db.tables import outbox
from tests.backends import Backend
from tests.waiting import eventually


@pytest.fixture
def databases(backend: Backend, tmp_path: Path) -> Iterator[list[Database]]:
    opened = [backend.open(service, tmp_path) for service in ("email", "fraud")]
    yield opened
    for database in opened:
        database.close()


def commit(database: Database) -> None:
    with database.write() as connection:
        connection.execute(outbox.delete())


def watchers() -> int:
    return sum(thread.name == "commits" for thread in threading.enumerate())


def quiet(woken: threading.Event) -> bool:
    """Whether nothing more comes, of commits before."""
    woken.clear()
    return not woken.wait(0.1)


def test_who_waits_is_woken_by_commits_to_its_own_database(databases: list[Database]) -> None:
    watch = CommitWatch()
    first, second, third = (threading.Event() for _ in range(3))
    with (
        watch.waking(databases[0], first),
        watch.waking(databases[1], second),
        watch.waking(databases[1], third),
    ):
        for woken in (first, second, third):
            assert woken.wait(30), "there may have been a commit before"
        eventually(lambda: quiet(first) and quiet(second) and quiet(third))
        assert watchers() == 1
        commit(databases[1])
        assert second.wait(30)
        assert third.wait(30)
        assert quiet(first)


def test_its_thread_lives_as_long_as_somebody_waits(databases: list[Database]) -> None:
    watch, woken = CommitWatch(), threading.Event()
    for _ in range(3):
        with watch.waking(databases[0], woken):
            assert woken.wait(30)
            assert watchers() == 1
        eventually(lambda: watchers() == 0)
        woken.clear()


def test_a_database_that_cannot_tell_is_asked_less_often_and_holds_up_no_other(
    databases: list[Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf, hearing = databases
    asked = []
    changed = DataVersion.changed

    def look(self: DataVersion) -> bool:
        if self._database is not deaf:
            return changed(self)
        asked.append(self)
        return True  # and is not connected

    monkeypatch.setattr(DataVersion, "changed", look)
    monkeypatch.setattr(commits, "DEAF_S", 3600.0)
    watch, woken, of_deaf = CommitWatch(), threading.Event(), threading.Event()
    with watch.waking(deaf, of_deaf), watch.waking(hearing, woken):
        assert of_deaf.wait(30)
        for _ in range(5):
            eventually(lambda: quiet(woken))
            commit(hearing)
            assert woken.wait(30)
    assert len(asked) == 1


def test_a_thread_that_could_not_be_started_is_started_for_the_next(
    databases: list[Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, woken = CommitWatch(), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError), watch.waking(databases[0], woken):
            pytest.fail("it cannot look")
    with watch.waking(databases[0], woken):
        assert woken.wait(30)


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
