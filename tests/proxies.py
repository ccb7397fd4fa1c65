"""A real broker behind a proxy, which answers in its place now and then as a broker does at a bad
moment, so that the moment comes in every run."""

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue

from tests.protocol import failed_fetch, no_coordinator, not_leader, produced_to, without_brokers

_PRODUCE, _FETCH, _METADATA, _OFFSET_FETCH, _FIND_COORDINATOR = 0, 1, 3, 9, 10  # api keys
_HOST = b"127.0.0.1"


class _Conversation:
    """One connection of a client, and the one to the broker that goes with it."""

    def __init__(self, client: socket.socket, broker: socket.socket) -> None:
        self.client, self.broker = client, broker
        self.asked: dict[int, tuple[int, int]] = {}  # (api, version) by correlation id
        self.held: bytes | None = None  # an answer that waits, see Unready
        self._sending = threading.Lock()

    def answer(self, message: bytes) -> None:
        with self._sending:
            _send(self.client, message)

    def start(self, requested: "_Changed", answered: "_Changed", delay: float) -> None:
        for source, changed, pass_on in (
            (self.client, requested, lambda message: _send(self.broker, message)),
            (self.broker, answered, self.answer),
        ):
            later = _later(pass_on, delay) if delay else pass_on
            arguments = (source, changed, later)
            threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _pump(
        self, source: socket.socket, changed: "_Changed", pass_on: Callable[[bytes], None]
    ) -> None:
        with suppress(OSError):
            for message in _messages(source):
                if (passed := changed(message, self)) is not None:
                    pass_on(passed)
        _shut(self.client)
        _shut(self.broker)


_Changed = Callable[[bytes, _Conversation], bytes | None]  # None: it is not passed on


class Proxy:
    """Clients are to be given `bootstrap_servers` instead of the one broker's, `broker`. All that
    passes takes `delay` seconds more, each way."""

    def __init__(self, broker: str, delay: float = 0) -> None:
        self._delay = delay
        self._broker = int(broker.removeprefix("127.0.0.1:"))
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    def cut(self) -> None:
        """End all connections; clients connect again, and ask for the brokers."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            _shut(each)

    def close(self) -> None:
        _shut(self._server)
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._server.accept()
                try:
                    broker = socket.create_connection(("127.0.0.1", self._broker))
                except OSError:
                    client.close()
                    continue
                self._sockets += [client, broker]
                _Conversation(client, broker).start(self._requested, self._answered, self._delay)

    def _requested(self, request: bytes, conversation: _Conversation) -> bytes | None:
        api, version, correlation_id = struct.unpack_from(">hhi", request)
        conversation.asked[correlation_id] = (api, version)
        return request

    def _answered(self, answer: bytes, conversation: _Conversation) -> bytes | None:
        """Its own address, where the broker tells of itself."""
        api, version = conversation.asked.pop(*struct.unpack_from(">i", answer), (-1, -1))
        if api in (_METADATA, _FIND_COORDINATOR):
            true, ours = (_HOST + struct.pack(">i", port) for port in (self._broker, self._port))
            answer = answer.replace(true, ours)
        return self._changed(answer, api, version)

    def _changed(self, answer: bytes, api: int, version: int) -> bytes:
        return answer


class Forgetful(Proxy):
    """While `forgets` is set, the cluster has no brokers and its partitions no leaders, as a broker
    says that has come up and of which the controller has not heard yet."""

    def __init__(self, broker: str) -> None:
        self.forgets = threading.Event()
        super().__init__(broker)

    def _changed(self, answer: bytes, api: int, version: int) -> bytes:
        if api == _METADATA and self.forgets.is_set():
            return without_brokers(answer, version)
        return answer


class Upset(Proxy):
    """Answers with errors: while `no_coordinator` is set, once, a request for a group's committed
    offsets, as a broker does from which the group has moved; while `fails` names a partition, each
    fetch of its records, as a broker does that cannot read its disk. `fetched` counts the answers
    that were good."""

    def __init__(self, broker: str) -> None:
        self.no_coordinator = threading.Event()
        self.fails: int | None = None
        self.fetched = 0
        super().__init__(broker)

    def _changed(self, answer: bytes, api: int, version: int) -> bytes:
        if api == _OFFSET_FETCH and self.no_coordinator.is_set():
            self.no_coordinator.clear()
            return no_coordinator(answer, version)
        if api == _FETCH and self.fails is not None:
            return failed_fetch(answer, version, self.fails)
        self.fetched += api == _FETCH
        return answer


class Unready(Proxy):
    """Refuses the first records for a topic, as a broker does that is told the next moment that it
    leads the partition: it takes what the client had sent behind them.

    The refusal waits for a second request, or PATIENCE_S for a client that sends none. `refused`
    counts by topic."""

    PATIENCE_S = 0.5

    def __init__(self, broker: str) -> None:
        self.refused: Counter[bytes] = Counter()
        super().__init__(broker)

    def _requested(self, request: bytes, conversation: _Conversation) -> bytes | None:
        api, version, correlation_id = struct.unpack_from(">hhi", request)
        if api == _PRODUCE:
            self._release(conversation)
            topic, partition = produced_to(request, version)
            if not self.refused[topic]:
                self.refused[topic] += 1
                conversation.held = not_leader(correlation_id, topic, partition)
                threading.Timer(self.PATIENCE_S, self._release, [conversation]).start()
                return None
        return super()._requested(request, conversation)

    def _release(self, conversation: _Conversation) -> None:
        held, conversation.held = conversation.held, None
        if held is not None:
            with suppress(OSError):
                conversation.answer(held)


def _later(pass_on: Callable[[bytes], None], delay: float) -> Callable[[bytes], None]:
    """The same, `delay` seconds later and in order."""
    waiting: SimpleQueue[tuple[float, bytes]] = SimpleQueue()

    def serve() -> None:
        with suppress(OSError):  # the connection is closed
            while True:
                due, message = waiting.get()
                time.sleep(max(0.0, due - time.monotonic()))
                pass_on(message)

    threading.Thread(target=serve, daemon=True).start()
    return lambda message: waiting.put((time.monotonic() + delay, message))


def _messages(source: socket.socket) -> Iterator[bytes]:
    with source.makefile("rb") as file:
        while len(head := file.read(4)) == 4:
            (size,) = struct.unpack(">i", head)
            yield file.read(size)


def _send(target: socket.socket, message: bytes) -> None:
    target.sendall(struct.pack(">i", len(message)) + message)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
