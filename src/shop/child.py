"""A process that does not outlive the one that started it.

It holds the read end of a pipe (the descriptor's number is in _SHOP_OWNER_FD) whose other end only
its owner has, so it sees the end of file when that dies, even by SIGKILL. On a second pipe
(_SHOP_READY_FD) it says when it does its work.
"""

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

OWNER_FD = "_SHOP_OWNER_FD"
READY_FD = "_SHOP_READY_FD"


class Child:
    """A supervisor's Member: a process in a session of its own, which the terminal's Ctrl-C does
    not reach.

    `log`: where its output goes, at the end of that file; None: to where ours goes.
    `inherited`: file descriptors that it holds for as long as it lives.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        log: Path | None = None,
        inherited: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.ready = False
        self._command = command
        self._environment = environment
        self._log = log
        self._inherited = inherited
        self._process: subprocess.Popen[bytes] | None = None
        self._pipes: list[int] = []

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        self._close()
        owned, owner = os.pipe()
        says_ready, ready = os.pipe()
        self._pipes = [says_ready, owner]
        os.set_blocking(says_ready, False)
        output = self._log.open("ab") if self._log else None
        try:
            self._process = subprocess.Popen(
                self._command,
                env={**self._environment, OWNER_FD: str(owned), READY_FD: str(ready)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(owned, ready, *self._inherited),
                start_new_session=True,
            )
        finally:
            os.close(owned)
            os.close(ready)
            if output:
                output.close()

    def poll(self) -> int | None:
        assert self._process is not None
        if not self.ready:
            with suppress(BlockingIOError):
                self.ready = bool(os.read(self._pipes[0], 64))
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def last_words(self) -> str:
        if self._log is None:
            return "its last lines are above"
        lines = self._log.read_text(errors="replace").splitlines()
        return _told(lines[-1]) if lines else f"{self._log} is empty"

    def stop(self, timeout: float) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _close(self) -> None:
        while self._pipes:
            os.close(self._pipes.pop())
        self.ready = False


def _told(line: str) -> str:
    """What a line of a process's output says, without what a log says of each."""
    with suppress(ValueError, TypeError, KeyError):
        return str(json.loads(line)["event"])
    return line.removeprefix("shop: ")
