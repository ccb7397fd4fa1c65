"""Keeps processes running: started together, started again when they die, stopped in order."""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

UNKNOWN = -1  # the exit code of what another process had started
_REFUSED = (1, 2, 3, 70)  # the exit codes of a process that said why it cannot start


class GaveUp(Exception):
    """A member cannot be kept running; the message is one line that says why."""


class Member(Protocol):
    """What is kept running. Used by one thread."""

    @property
    def name(self) -> str: ...

    @property
    def ready(self) -> bool:
        """Whether what runs now does its work."""

    def start(self) -> None:
        """Also again, after it died."""

    def poll(self) -> int | None:
        """None while it runs, else its exit code: 128 + n for signal n, or UNKNOWN."""

    def last_words(self) -> str:
        """Where or how it said why it died."""

    def stop(self, timeout: float) -> None:
        """Let it finish; end it hard after `timeout` seconds. Nothing when it does not run."""

    def kill(self) -> None: ...


@dataclass
class _Life:
    """What is remembered of a member: when it started, how often it died young, when it is due."""

    since: float = 0.0
    early_deaths: int = 0
    was_ready: bool = False
    due: float | None = None


class Supervisor:
    """Members in the order in which they are started and stopped: those that use another one
    come before it. `check` does the work, and is to be called several times a second.

    A member that died is started again after `delay` seconds, doubled with each death before its
    `youth` is over, up to 25 times that. After `patience` such deaths, or when it refuses its
    first start, the supervisor gives up. `say` gets one line for each death.
    """

    def __init__(
        self,
        members: Sequence[Member],
        say: Callable[[str], None],
        *,
        delay: float = 0.2,
        youth: float = 60.0,
        patience: int = 10,
    ) -> None:
        self._lives = {member: _Life() for member in members}
        self._say = say
        self._delay = delay
        self._youth = youth
        self._patience = patience

    def start(self) -> None:
        for member in self._lives:
            self._start(member)

    @property
    def starting(self) -> list[str]:
        """The names of those that are not ready."""
        return [member.name for member in self._lives if not member.ready]

    def check(self) -> None:
        """Start again what died; raises GaveUp."""
        for member, life in self._lives.items():
            if life.due is not None:
                if time.monotonic() >= life.due:
                    self._start(member)
            elif (code := member.poll()) is not None:
                self._died(member, life, code)
            else:
                life.was_ready |= member.ready

    def stop(self, timeout: float = 4.5) -> None:
        """One after the other, in `timeout` seconds for all together."""
        deadline = time.monotonic() + timeout
        for number, member in enumerate(self._lives):
            left = max(0.0, deadline - time.monotonic())
            member.stop(left / (len(self._lives) - number))

    def kill(self) -> None:
        for member in self._lives:
            member.kill()

    def _start(self, member: Member) -> None:
        life = self._lives[member]
        life.since, life.due = time.monotonic(), None
        member.start()

    def _died(self, member: Member, life: _Life, code: int) -> None:
        life.was_ready |= member.ready
        what = f"{member.name} ended{_with(code)}"
        if not life.was_ready and code in _REFUSED:
            raise GaveUp(f"{member.name} cannot start: {member.last_words()}")
        young = time.monotonic() - life.since < self._youth
        life.early_deaths = life.early_deaths + 1 if young else 1
        if life.early_deaths >= self._patience:
            raise GaveUp(
                f"{what}, {life.early_deaths} times in a row; giving up: {member.last_words()}"
            )
        delay = self._delay * min(2 ** (life.early_deaths - 1), 25)
        life.due = time.monotonic() + delay
        self._say(f"{what}; starting it again in {delay:g} s")


def _with(code: int) -> str:
    if code == UNKNOWN:
        return ""
    try:
        return f" with exit code {code} ({signal.Signals(code - 128).name})"
    except ValueError:
        return f" with exit code {code}"
