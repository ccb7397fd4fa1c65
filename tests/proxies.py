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

_PRODUCE, _METADATA, _FIND_COORDINATOR = 0, 3, 10  # api keys
_LEADER_NOT_AVAILABLE, _NOT_LEADER = 5, 6
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
        return self._metadata(answer, version) if api == _METADATA else answer

    def _metadata(self, answer: bytes, version: int) -> bytes:
        return answer


class Forgetful(Proxy):
    """While `forgets` is set, the cluster has no brokers and its partitions no leaders, as a broker
    says that has come up and of which the controller has not heard yet."""

    def __init__(self, broker: str) -> None:
        self.forgets = threading.Event()
        super().__init__(broker)

    def _metadata(self, answer: bytes, version: int) -> bytes:
        return _without_brokers(answer, version) if self.forgets.is_set() else answer


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
            topic, partition = _produced_to(request, version)
            if not self.refused[topic]:
                self.refused[topic] += 1
                conversation.held = _not_leader(correlation_id, topic, partition)
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


def _produced_to(request: bytes, version: int) -> tuple[bytes, int]:
    """The topic and partition of a Produce request (versions 9 to 12), which librdkafka sends for
    each partition by itself."""
    assert 9 <= version <= 12, f"Produce version {version} is laid out otherwise"
    at = _Cursor(bytearray(request), 8)  # behind api, version and correlation id
    (client,) = struct.unpack_from(">h", request, at.place)
    at.skip(2 + max(0, client))
    at.tags()
    at.string()  # transactional id
    at.skip(2 + 4)  # acks, timeout
    assert len(at.array()) == 1
    topic = at.text()
    assert len(at.array()) == 1
    (partition,) = struct.unpack_from(">i", request, at.place)
    return topic, partition


def _not_leader(correlation_id: int, topic: bytes, partition: int) -> bytes:
    """A Produce response."""
    offsets = struct.pack(">ihqqq", partition, _NOT_LEADER, -1, -1, -1)
    # No faulty records, no message, no tags; behind the partitions no tags, and no throttle time.
    one = offsets + b"\x01" + b"\x00" + b"\x00"
    named = bytes([len(topic) + 1]) + topic + b"\x02" + one + b"\x00"
    return struct.pack(">i", correlation_id) + b"\x00" + b"\x02" + named + bytes(4) + b"\x00"


def _without_brokers(answer: bytes, version: int) -> bytes:
    """A Metadata response (https://kafka.apache.org/protocol, version 12 and 13)."""
    assert version >= 12, f"Metadata version {version} is laid out otherwise"
    message = bytearray(answer)
    at = _Cursor(message, 4)  # behind the correlation id
    at.tags()
    at.skip(4)  # throttle time
    brokers = at.place
    for _ in at.array():
        at.skip(4)  # id
        at.string()  # host
        at.skip(4)  # port
        at.string()  # rack
        at.tags()
    behind = at.place
    at.string()  # cluster id
    at.skip(4)  # controller
    for _ in at.array():  # topics
        at.skip(2)  # error
        at.string()  # name
        at.skip(16 + 1)  # id, whether it is internal
        for _ in at.array():  # partitions
            struct.pack_into(">h", message, at.place, _LEADER_NOT_AVAILABLE)
            at.skip(2 + 4)  # error, number
            struct.pack_into(">i", message, at.place, -1)
            at.skip(4 + 4)  # leader, its epoch
            for _ in range(3):  # replicas, those in sync, those away
                at.skip(4 * len(at.array()))
            at.tags()
        at.skip(4)  # what one is authorised to
        at.tags()
    return bytes(message[:brokers]) + b"\x01" + bytes(message[behind:])


class _Cursor:
    """A place in a message of Kafka's "flexible" versions."""

    def __init__(self, message: bytearray, place: int) -> None:
        self._message, self.place = message, place

    def skip(self, count: int) -> None:
        self.place += count

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._message[self.place]
            self.place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def array(self) -> range:
        return range(max(0, self.varint() - 1))  # 0 stands for null

    def string(self) -> None:
        self.skip(len(self.array()))

    def text(self) -> bytes:
        length = len(self.array())
        self.skip(length)
        return bytes(self._message[self.place - length : self.place])

    def tags(self) -> None:
        for _ in range(self.varint()):
            self.varint()
            self.skip(self.varint())
