"""A broker that says for a while that there are no brokers: a real one behind a proxy, which
changes its answers about the cluster."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

_METADATA, _FIND_COORDINATOR = 3, 10  # api keys
_LEADER_NOT_AVAILABLE = 5
_HOST = b"127.0.0.1"


class Forgetful:
    """Clients are to be given `bootstrap_servers` instead of the one broker's, `broker`.

    While `forgets` is set, the cluster has no brokers and its partitions no leaders, as a broker
    says that has come up and of which the controller has not heard yet."""

    def __init__(self, broker: str) -> None:
        self.forgets = threading.Event()
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
                asked: dict[int, tuple[int, int]] = {}  # (api, version) by correlation id
                for arguments in (
                    (client, broker, lambda request, asked=asked: _note(request, asked)),
                    (broker, client, lambda answer, asked=asked: self._changed(answer, asked)),
                ):
                    threading.Thread(target=_pump, args=arguments, daemon=True).start()

    def _changed(self, answer: bytes, asked: dict[int, tuple[int, int]]) -> bytes:
        api, version = asked.pop(*struct.unpack_from(">i", answer), (-1, -1))
        if api in (_METADATA, _FIND_COORDINATOR):
            true, ours = (_HOST + struct.pack(">i", port) for port in (self._broker, self._port))
            answer = answer.replace(true, ours)
        if api == _METADATA and self.forgets.is_set():
            return _without_brokers(answer, version)
        return answer


def _note(request: bytes, asked: dict[int, tuple[int, int]]) -> bytes:
    api, version, correlation_id = struct.unpack_from(">hhi", request)
    asked[correlation_id] = (api, version)
    return request


def _pump(source: socket.socket, target: socket.socket, changed: Callable[[bytes], bytes]) -> None:
    with suppress(OSError):
        for message in _messages(source):
            message = changed(message)
            target.sendall(struct.pack(">i", len(message)) + message)
    _shut(source)
    _shut(target)


def _messages(source: socket.socket) -> Iterator[bytes]:
    with source.makefile("rb") as file:
        while len(head := file.read(4)) == 4:
            (size,) = struct.unpack(">i", head)
            yield file.read(size)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)


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

    def tags(self) -> None:
        for _ in range(self.varint()):
            self.varint()
            self.skip(self.varint())
