"""The embedded broker, or small cluster."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from shop.broker import jvm as java
from shop.broker.classpath import ClassPath, default_cache
from shop.broker.config import LOG4J2, server_properties
from shop.broker.errors import BrokerError
from shop.broker.locks import acquire, is_held
from shop.broker.ports import HOST, require_free
from shop.broker.process import await_answers, end, exit_code, spawn
from shop.broker.progress import Progress, silent
from shop.broker.status import BrokerStatus, status_of
from shop.broker.storage import Cluster, Node, delete, needs_format, nodes_of, recorded_nodes
from shop.broker.training import Trainer

_OWNER_GONE_GRACE = 10  # seconds from SIGTERM to SIGKILL when the owner died without stopping us


class EmbeddedKafka:
    """Apache Kafka in KRaft mode on this machine's loopback interface, its data in `directory`.

    It lives as long as the object that started it: it ends with `stop`, with the object, and with
    the object's process, also when that is killed (within a second or two); but not with a Ctrl-C
    in the terminal, so that the owner can drain its clients first. Started with `detached=True`
    it lives until someone calls `stop`. `status`, `stop`, `kill` and `wipe` work on any object of
    the same directory, in any process. One owner per directory at a time.

    Every error is a BrokerError of one line, which says what to do. Methods may be called from
    any thread; `start`, `stop` and `wipe` wait for one another.

    port: of the first node's broker. `nodes` brokers take the ports from there on, and their
        controllers the `nodes` ports after those. Of a single node it may change at any start.
    nodes: 1 to 9; each is broker and controller, some 250 MB. With 3 or more, topics have by
        default 3 replicas, of which 2 must be in sync, else one.
    heap: of each node's JVM, in bytes or with a suffix k, m, g.
    fast: for tests: no fsync per batch, so that a crash of the operating system may lose
        acknowledged records; the death of a process never does.
    cache: the folder for jars and start-up cache, shared by any number of directories and
        processes; default_cache() if None.
    jvm_options: further options of each JVM, after our own.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 9092,
        nodes: int = 1,
        heap: str = "384m",
        fast: bool = False,
        cache: Path | None = None,
        jvm_options: Sequence[str] = (),
    ) -> None:
        if not 1 <= nodes <= 9:
            raise ValueError(f"nodes must be 1 to 9, not {nodes}")
        self.directory = directory.absolute()
        self._port = port
        self._nodes = nodes_of(self.directory, port, nodes)
        self._fast = fast
        self._cache = (cache or default_cache()).absolute()
        self._jvm = java.Jvm(ClassPath(self._cache), heap, tuple(jvm_options))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._trainer = Trainer(self._cache, self._jvm.class_path)
        self._changing = threading.RLock()

    @property
    def bootstrap_servers(self) -> str:
        """For clients, as given to this object: `127.0.0.1:9092`, with commas for several."""
        return ",".join(f"{HOST}:{node.port}" for node in self._nodes)

    @property
    def nodes(self) -> int:
        """How many there are, running or not."""
        return len(self._nodes)

    def start(
        self, timeout: float = 60.0, detached: bool = False, progress: Progress | None = None
    ) -> None:
        """Start the nodes that are down, and return when every one answers and sees all others.

        timeout: seconds from the start of the JVMs; the download before it is bounded only by
        the network's own timeouts (10 s without a byte). After a BrokerError, or when
        interrupted, none of the nodes that this call started runs.
        """
        with self._changing, _told_by_broker_error(self.directory):
            down = self._launch(detached, progress or silent)
            try:
                started = {node: self._processes[node.id] for node in down}
                await_answers(started, len(self._nodes), timeout)
            except BaseException:
                self._end(down, signal.SIGKILL, timeout=10.0)
                raise
            if down and not detached and not self._jvm.records:
                self._trainer.start()

    def start_again(self, detached: bool = False) -> None:
        """For a supervisor: start the nodes that are down, and return at once. `status` tells when
        they answer, and `ended` whether one ended instead, or another one meanwhile."""
        with self._changing, _told_by_broker_error(self.directory):
            self._launch(detached, silent)

    def stop(self, timeout: float = 10.0) -> None:
        """Stop all nodes cleanly; one that still runs after `timeout` seconds is killed. Usually
        done in half a second. Does nothing when none runs."""
        with self._changing:
            self._trainer.stop()
            self._end(self._recorded(), signal.SIGTERM, timeout)

    def kill(self, node: int | None = None) -> None:
        """SIGKILL to one node (1 is the first), or to all, and wait until they are gone."""
        nodes = [each for each in self._recorded() if node in (None, each.id)]
        self._end(nodes, signal.SIGKILL, timeout=10.0)

    def poll(self) -> int | None:
        """The exit code of a node that this object started and that has ended, 128 + n for
        signal n; None while all that it started run. `start` brings back what has ended."""
        codes = map(exit_code, list(self._processes.values()))
        return next((code for code in codes if code is not None), None)

    def ended(self) -> dict[int, int | None]:
        """The nodes that do not run, each with its exit code as `poll` gives it; None where that
        is not known, since another process had started the node."""
        down = [node for node in self._nodes if not self._runs(node)]
        return {node.id: self._code(node) for node in down}

    def pids(self) -> dict[int, int]:
        """The pid of each node that runs, whoever started it. Asks no node, so that it takes no
        time."""
        found = ((node.id, node.pid()) for node in self._recorded() if is_held(node.lock))
        return {node: pid for node, pid in found if pid is not None}

    @property
    def running(self) -> bool:
        """Whether any node of the directory runs, whoever started it."""
        return any(is_held(node.lock) for node in self._recorded())

    def status(self) -> BrokerStatus:
        """Of the directory, whoever started what runs there. Takes up to a second per node that
        runs and does not answer."""
        return status_of(self._recorded())

    def wipe(self) -> None:
        """Delete all topics, records and logs for ever; not what else is in the directory. Does
        not ask. Raises BrokerError when a node runs."""
        with self._changing, ExitStack() as locks:
            for folder in self.directory.glob("node-[1-9]"):
                self._lock(Node(0, folder, 0, 0), locks)
            delete(self.directory)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _launch(self, detached: bool, progress: Progress) -> list[Node]:
        """Start what is down, and give it back. A node of a cluster that another process had
        started may run; of a single one it may not."""
        with ExitStack() as locks:
            held = self._lock_those_down(locks)
            down = list(held)
            cluster = Cluster.open(self.directory, self._port, len(self._nodes))
            for node in down:
                require_free(node.port)
                require_free(node.controller_port)
            fresh = {node: lock for node, lock in held.items() if needs_format(node)}
            self._jvm.class_path.ensure(progress)
            for node in down:
                text = server_properties(node, self._nodes, flush=not self._fast)
                (node.folder / "server.properties").write_text(text)
                (node.folder / "log4j2.properties").write_text(LOG4J2)
            java.format_all(self._jvm, cluster, self._nodes, fresh)
            try:
                for node, lock in held.items():
                    self._processes[node.id] = self._spawn(node, lock, detached)
            except BaseException:
                locks.close()
                self._end(down, signal.SIGKILL, timeout=10.0)
                raise
        return down  # the JVMs have the locks now

    def _spawn(self, node: Node, lock: int, detached: bool) -> subprocess.Popen[bytes]:
        grace = 0 if self._jvm.records else _OWNER_GONE_GRACE
        return spawn(
            self._jvm.command("kafka.Kafka", "server.properties"),
            folder=node.folder,
            pid_file=node.pid_file,
            console=node.console,
            lock=lock,
            environment=java.ENVIRONMENT,
            grace=None if detached else grace,
        )

    def _end(self, nodes: list[Node], with_signal: signal.Signals, timeout: float) -> None:
        end(nodes, with_signal, timeout)
        for process in filter(None, (self._processes.get(node.id) for node in nodes)):
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def _code(self, node: Node) -> int | None:
        process = self._processes.get(node.id)
        return None if process is None else exit_code(process)

    def _runs(self, node: Node) -> bool:
        return self._started(node) if node.id in self._processes else is_held(node.lock)

    def _started(self, node: Node) -> bool:
        process = self._processes.get(node.id)
        return process is not None and process.poll() is None

    def _recorded(self) -> list[Node]:
        """The nodes of the directory as it was last started, which another object may have done
        with other ports."""
        return recorded_nodes(self.directory) or self._nodes

    def _lock_those_down(self, locks: ExitStack) -> dict[Node, int]:
        """The nodes that do not run, each with the descriptor of its lock."""
        ours_run = [node for node in self._nodes if self._started(node)]
        others = [node for node in self._nodes if node not in ours_run]
        for node in others:
            node.log.parent.mkdir(parents=True, exist_ok=True)
        found = {node: self._acquire(node, locks) for node in others}
        held = {node: lock for node, lock in found.items() if lock is not None}
        if others and not held:
            raise self._runs_already(others[0])
        return held

    def _lock(self, node: Node, locks: ExitStack) -> int:
        descriptor = self._acquire(node, locks)
        if descriptor is None:
            raise self._runs_already(node)
        return descriptor

    def _acquire(self, node: Node, locks: ExitStack) -> int | None:
        # Half a second, since a JVM that was just killed may still be on its way out.
        descriptor = acquire(node.lock, wait=0.5)
        if descriptor is not None:
            locks.callback(os.close, descriptor)
        return descriptor

    def _runs_already(self, node: Node) -> BrokerError:
        return BrokerError(
            f"Kafka already runs in {self.directory} (pid {node.pid()}): use that one, stop"
            " it first, or choose another directory"
        )


@contextmanager
def _told_by_broker_error(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BrokerError(
            f"cannot use {error.filename or directory} ({error.strerror or error}):"
            " make it writable, free some space, or choose another directory"
        ) from error
    except ModuleNotFoundError as error:  # the image is without them
        raise BrokerError(
            f"{error.name} is not installed here, so no Kafka can be started; name brokers that run"
            " by SHOP_KAFKA__BOOTSTRAP_SERVERS"
        ) from error
