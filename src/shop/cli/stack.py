"""Everything on this machine: the broker if it is embedded, the API and the listeners."""

import hashlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from shop.broker.locks import acquire
from shop.broker.ports import free_port, is_free
from shop.child import Child
from shop.cli.context import embedded_kafka, with_brokers
from shop.cli.errors import CommandFailed, say
from shop.cli.supervised_broker import Broker
from shop.settings import PREFIX, Settings, environment
from shop.supervisor import Member, Supervisor

_PATIENT = "600"  # seconds; the clients of our own broker wait for it, it may be downloading
_TOPICS_COME = ("--wait", "60")  # with brokers of others; the listeners create the topics


class Stack:
    """The supervised processes of a data directory. `lock` is held by each of them; the groups
    `without` are not run. `stream`: whether streams are derived too."""

    def __init__(
        self,
        settings: Settings,
        logs: Path | None,
        lock: int,
        without: Sequence[str] = (),
        stream: bool = False,
    ) -> None:
        self._began = time.monotonic()
        self.streams = stream
        self.settings = _with_health(with_brokers(settings))
        inherited = {k: v for k, v in os.environ.items() if not k.upper().startswith(PREFIX)}
        variables = inherited | environment(self.settings)
        wait = ("--wait", _PATIENT) if settings.embedded_broker else ()
        instance = ("--instance", _instance(settings.data_dir))
        left_out = [word for group in without for word in ("--without", group)]
        commands = {
            "api": ("serve", *wait),
            "listeners": ("listen", "--all", *left_out, "--create-topics", *instance, *wait),
            **({"stream": ("stream", *(wait or _TOPICS_COME))} if stream else {}),
        }
        members: list[Member] = []
        for name, arguments in commands.items():
            command = [sys.executable, "-P", "-m", "shop.cli", *arguments]
            log = logs / f"{name}.log" if logs else None
            own = variables | {f"{PREFIX}HEALTH__PORT": str(self.health_port(name))}
            members.append(Child(name, command, own, log=log, inherited=(lock,)))
        if settings.embedded_broker:
            members.append(Broker(embedded_kafka(settings)))
        self.supervisor = Supervisor(members, say)

    def health_port(self, member: str) -> int:
        """Where the member answers beside what it does: the listeners at the port set, streams at
        the next one, the API at none."""
        port = self.settings.health.port
        return {"listeners": port, "stream": port + 1}.get(member, 0)

    def wait_until_ready(self, patience: float = 20.0) -> float:
        """The seconds that it took; says what is missing when it takes long. Raises GaveUp."""
        while True:
            self.supervisor.check()
            missing = self.supervisor.starting
            if not missing:
                return time.monotonic() - self._began
            if time.monotonic() - self._began > patience:
                say(f"still waiting for {', '.join(missing)}")
                patience *= 2
            time.sleep(0.02)


def _with_health(settings: Settings) -> Settings:
    """The listeners answer for their health, and the API asks them."""
    port = settings.health.port or free_port()
    url = f"http://127.0.0.1:{port}/health/ready"
    health = settings.health.model_copy(update={"port": port, "listeners_url": url})
    return settings.model_copy(update={"health": health})


@contextmanager
def running(
    settings: Settings,
    logs: Path | None = None,
    without: Sequence[str] = (),
    stream: bool = False,
) -> Iterator[Stack]:
    """All processes, for the block. Ctrl-C and SIGTERM raise KeyboardInterrupt in it; a second
    one, while the processes are stopping, kills them.

    logs: the folder for what they say; None: where this process says it.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with _claimed(settings.data_dir) as lock:
        _require_free(settings.http.host, settings.http.port, "SHOP_HTTP__PORT")
        if settings.embedded_broker and not embedded_kafka(settings).running:
            _require_free("127.0.0.1", settings.broker.port, "SHOP_BROKER__PORT")
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
        stack = Stack(settings, logs, lock, without, stream)
        try:
            stack.supervisor.start()
            yield stack
        finally:
            try:
                stack.supervisor.stop()
            except KeyboardInterrupt:
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
                stack.supervisor.kill()
                raise SystemExit(130) from None


def lock_of(directory: Path) -> Path:
    """The file that the shop which runs on a data directory has locked."""
    return directory / ".lock"


@contextmanager
def _claimed(directory: Path) -> Iterator[int]:
    """Hold the lock of a data directory. The processes that inherit it hold it too: after a kill
    it is free when the last of them has ended."""
    path = lock_of(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = acquire(path)
        if lock is None and not _is_alive(owner := path.read_text().strip()):
            say(f"the shop that ran in {directory} was killed; waiting for its last processes")
            lock = acquire(path, wait=10.0)
    except OSError as error:
        why = f"cannot use {directory} ({error.strerror}); SHOP_DATA_DIR chooses another one"
        raise CommandFailed(why) from None
    if lock is None:
        raise CommandFailed(
            f"a shop already runs in {directory} (pid {owner}); stop that one, or choose another "
            "directory with SHOP_DATA_DIR"
        )
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        yield lock
    finally:
        os.close(lock)


def _is_alive(pid: str) -> bool:
    with suppress(ValueError, ProcessLookupError):
        os.kill(int(pid), 0)
        return True
    return False


def _require_free(host: str, port: int, setting: str) -> None:
    if not is_free(port):
        raise CommandFailed(f"port {port} of {host} is taken; {setting} chooses another one")


def _instance(directory: Path) -> str:
    """The same for each `shop up` of a directory, and another for each other one."""
    where = f"{socket.gethostname()}:{directory.absolute()}"
    return f"up-{hashlib.sha256(where.encode()).hexdigest()[:8]}"
