import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from shop.child import Child
from shop.supervisor import GaveUp, Supervisor
from tests.waiting import eventually

READY = "import os, signal, sys; os.write(int(os.environ['_SHOP_READY_FD']), b'ready'); "
STAYS = READY + "signal.pause()"
DRAINS = READY + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + STAYS
FOLLOWS_ITS_OWNER = READY + "os.read(int(os.environ['_SHOP_OWNER_FD']), 1)"


@pytest.fixture
def started() -> Iterator[list[Child]]:
    children: list[Child] = []
    yield children
    for child in children:
        child.kill()


@pytest.fixture
def child(started: list[Child], tmp_path: Path) -> Callable[..., Child]:
    def make(code: str, name: str = "worker") -> Child:
        command = [sys.executable, "-c", code]
        made = Child(name, command, os.environ, log=tmp_path / f"{name}.log")
        started.append(made)
        return made

    return make


def until(condition: Callable[[], object], supervisor: Supervisor) -> None:
    def looked() -> object:
        supervisor.check()
        return condition()

    eventually(looked)


def test_a_member_is_ready_when_it_says_so(child: Callable[..., Child]) -> None:
    worker = child(STAYS)
    supervisor = Supervisor([worker], print)
    supervisor.start()

    assert supervisor.starting == ["worker"]
    until(lambda: not supervisor.starting, supervisor)


def test_one_that_is_killed_is_started_again_and_named_with_its_signal(
    child: Callable[..., Child],
) -> None:
    said: list[str] = []
    worker = child(STAYS)
    supervisor = Supervisor([worker], said.append, delay=0.01)
    supervisor.start()
    until(lambda: worker.ready, supervisor)
    first = worker.pid
    assert first

    os.kill(first, signal.SIGKILL)
    until(lambda: worker.pid != first and worker.ready, supervisor)

    assert said == ["worker ended with exit code 137 (SIGKILL); starting it again in 0.01 s"]


def test_one_that_keeps_dying_is_given_up(child: Callable[..., Child]) -> None:
    said: list[str] = []
    worker = child("print('my reason'); raise SystemExit(9)")
    supervisor = Supervisor([worker], said.append, delay=0.001, patience=3)
    supervisor.start()

    with pytest.raises(GaveUp, match=r"exit code 9, 3 times in a row; giving up: my reason"):
        until(lambda: False, supervisor)
    assert len(said) == 2


def test_one_that_refuses_its_first_start_is_not_tried_again(child: Callable[..., Child]) -> None:
    worker = child("raise SystemExit('shop: the port is taken')")
    supervisor = Supervisor([worker], print)
    supervisor.start()

    with pytest.raises(GaveUp, match=r"^worker cannot start: the port is taken$"):
        until(lambda: False, supervisor)


def test_all_are_stopped_even_one_that_is_deaf(child: Callable[..., Child]) -> None:
    members = [child(DRAINS, "drains"), child(DEAF, "deaf")]
    supervisor = Supervisor(members, print)
    supervisor.start()
    until(lambda: not supervisor.starting, supervisor)

    supervisor.stop(timeout=1.0)

    assert [member.poll() for member in members] == [0, 137]


def test_a_child_sees_when_its_owner_is_killed(tmp_path: Path) -> None:
    owner = f"""
import os, sys, time
from pathlib import Path
from shop.child import Child
from shop.supervisor import Supervisor
child = Child("worker", [sys.executable, "-c", {FOLLOWS_ITS_OWNER!r}], os.environ)
supervisor = Supervisor([child], print)
supervisor.start()
while supervisor.starting:
    supervisor.check()
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    worker = Child("owner", [sys.executable, "-c", owner], os.environ, log=tmp_path / "log")
    worker.start()
    eventually(lambda: worker.poll() == 137)

    pid = int((tmp_path / "log").read_text())
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")
