"""TCP ports of the loopback interface: finding free ones, and asking who answers."""

import random
import socket
import struct

from shop.broker.errors import BrokerError

HOST = "127.0.0.1"

# Below the ports that Linux (32768) and macOS (49152) hand out to outgoing connections, so that
# none of those takes the port between our look and the broker's bind.
_FREE_RANGE = range(20_000, 32_000)

_METADATA, _VERSION, _CORRELATION = 3, 1, 7_041_993
_REQUEST = struct.pack(">hhihi", _METADATA, _VERSION, _CORRELATION, -1, 0)


def is_free(port: int) -> bool:
    """Whether a server could bind to the port now; connections in TIME_WAIT do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port(nodes: int = 1) -> int:
    """A port p such that p to p + 2 * nodes - 1 are free, which is what a cluster of that many
    nodes takes. Nothing is reserved: use it soon.

    Raises BrokerError when there is none.
    """
    for port in random.sample(_FREE_RANGE, 500):
        if all(is_free(candidate) for candidate in range(port, port + 2 * nodes)):
            return port
    raise BrokerError(f"no {2 * nodes} free ports in a row on {HOST}: stop some of its servers")


def require_free(port: int) -> None:
    """Raises BrokerError when the port is taken, or is one that this user may not have."""
    if not is_free(port):
        raise BrokerError(
            f"port {port} of {HOST} is taken: stop what listens there, or choose another port"
        )


def brokers_seen(port: int, timeout: float = 1.0) -> int:
    """How many brokers the one on this port sees alive, itself included; 0 when no Kafka answers
    there within `timeout` seconds.

    It is one Metadata request of version 1 for no topic, whose answer begins with the number of
    brokers: a port that merely accepts connections does not count as an answer.
    """
    try:
        with socket.create_connection((HOST, port), timeout) as connection:
            connection.sendall(struct.pack(">i", len(_REQUEST)) + _REQUEST)
            answer = connection.recv(12, socket.MSG_WAITALL)
            _length, correlation, brokers = struct.unpack(">iii", answer)
    except (OSError, struct.error):
        return 0
    return int(brokers) if correlation == _CORRELATION else 0
