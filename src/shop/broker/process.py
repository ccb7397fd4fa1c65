"""Processes that end with their owner, however it ends; waiting for them, and ending them."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from shop.broker.errors import BrokerError
from shop.broker.jvm import cause
from shop.broker.locks import is_held
from shop.broker.ports import brokers_seen
from shop.broker.storage import Node

_POLL = 0.02  # seconds

# The guard: a POSIX shell between the owner and the command, in a session of its own, so that
# Ctrl-C in the owner's terminal reaches neither. Its stdin is a pipe whose other end only the
# owner has; end of file means that the owner has gone. Its stdout is the lock, which it hands to
# the command alone.
_GUARD = """
pid_file=$1 grace=$2; shift 2
exec 3<&0 4>&1 1>&2 </dev/null
if [ "$grace" = detached ]; then
  echo $$ >"$pid_file"
  exec "$@" 3<&-
fi
"$@" 3<&- &
command=$!
echo $command >"$pid_file"
exec 4>&-
(
  read -r _ <&3
  if [ "$grace" -gt 0 ]; then kill -TERM $command; fi
  while [ "$grace" -gt 0 ] && kill -0 $command 2>/dev/null; do sleep 1; grace=$((grace - 1)); done
  kill -KILL 0
) &
watcher=$!
wait $command
code=$?
kill -KILL $watcher
exit $code
"""


def spawn(
    command: Sequence[str],
    *,
    folder: Path,
    pid_file: Path,
    console: Path,
    lock: int,
    environment: Mapping[str, str],
    grace: int | None,
) -> subprocess.Popen[bytes]:
    """Start a command in `folder`, its output in the file `console`, its pid in `pid_file`.

    lock: a file descriptor that the command inherits, for as long as it lives.
    grace: the seconds it gets between SIGTERM and SIGKILL when this process ends or the returned
    Popen's stdin is closed (0: SIGKILL at once, for the whole group); None: it is detached, and
    outlives us. A child that this process forks without exec also counts as the owner.

    The Popen's returncode is the command's, as a shell has it: 128 + n for signal n.
    """
    mode = "detached" if grace is None else str(grace)
    pid_file.unlink(missing_ok=True)
    with console.open("wb") as output:
        return subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(pid_file), mode, *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL if grace is None else subprocess.PIPE,
            stdout=lock,
            stderr=output,
            start_new_session=True,
        )


def exit_code(process: subprocess.Popen[bytes]) -> int | None:
    """As a shell has it: 128 + n for signal n; None while the process runs."""
    code = process.poll()
    return 128 - code if code is not None and code < 0 else code


def await_answers(
    started: Mapping[Node, subprocess.Popen[bytes]], brokers: int, timeout: float
) -> None:
    """Return when each node answers and sees that many brokers. Raises BrokerError when one
    ended instead, or after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    log_from = {node: _size(node.log) for node in started}  # what older runs wrote
    for node in started:
        while brokers_seen(node.port) < brokers:
            for each, process in started.items():
                if (code := exit_code(process)) is not None:
                    raise BrokerError(_death_notice(each, code, log_from[each]))
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"Kafka did not answer on port {node.port} within {timeout:g} s: see"
                    f" {node.log}, or allow more time"
                )
            time.sleep(_POLL)


def end(nodes: Sequence[Node], with_signal: signal.Signals, timeout: float) -> None:
    """Send the signal to what runs of these nodes, started by whomever, and return when they are
    gone. After `timeout` seconds they are killed."""
    deadline = time.monotonic() + timeout
    signalled: set[tuple[int, signal.Signals]] = set()
    while running := [node for node in nodes if is_held(node.lock)]:
        if time.monotonic() > deadline:
            if with_signal is signal.SIGKILL:
                raise BrokerError(f"{running[0].lock} is still held: end the process that has it")
            deadline, with_signal = time.monotonic() + 10, signal.SIGKILL
        if len(nodes) > 1 and all(node.is_closed for node in running):
            # The last controller would wait 5 s for the others, which are gone, to take over.
            with_signal = signal.SIGKILL
        for node in running:
            pid = node.pid()  # None in the first moments of a node
            if pid is not None and (pid, with_signal) not in signalled:
                signalled.add((pid, with_signal))
                _send(pid, with_signal)
        time.sleep(_POLL)


def _send(pid: int, with_signal: signal.Signals) -> None:
    try:
        os.kill(pid, with_signal)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise BrokerError(f"Kafka (pid {pid}) is another user's: stop it as that user") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _death_notice(node: Node, code: int, log_from: int) -> str:
    log = node.log.read_bytes()[log_from:] if node.log.exists() else b""
    console = node.console.read_text(errors="replace").splitlines()
    told = [line for line in console if "warning" not in line.lower()]
    why = cause(log.decode(errors="replace")) or (told or ["it said nothing"])[0]
    return f"Kafka (node {node.id}) ended while starting, exit code {code}: {why} (see {node.log})"
