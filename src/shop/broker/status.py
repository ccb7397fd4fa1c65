"""What `EmbeddedKafka.status` answers."""

from collections.abc import Iterable
from dataclasses import dataclass

from shop.broker.locks import is_held
from shop.broker.ports import HOST, brokers_seen
from shop.broker.storage import Node


@dataclass(frozen=True)
class NodeStatus:
    """One node, as seen when asked."""

    node: int
    port: int
    pid: int | None
    """Of its JVM; None when it does not run."""
    answers: bool
    """Whether Kafka answers on the port."""


@dataclass(frozen=True)
class BrokerStatus:
    """What runs in a directory, whoever started it."""

    nodes: tuple[NodeStatus, ...]

    @property
    def running(self) -> bool:
        """Whether any node does."""
        return any(node.pid is not None for node in self.nodes)

    @property
    def answers(self) -> bool:
        """Whether every node does."""
        return all(node.answers for node in self.nodes)

    @property
    def bootstrap_servers(self) -> str:
        """Of all nodes, running or not."""
        return ",".join(f"{HOST}:{node.port}" for node in self.nodes)


def status_of(nodes: Iterable[Node]) -> BrokerStatus:
    """Ask each node that runs."""
    found = []
    for node in nodes:
        pid = node.pid() if is_held(node.lock) else None
        answers = pid is not None and brokers_seen(node.port) > 0
        found.append(NodeStatus(node.id, node.port, pid, answers))
    return BrokerStatus(tuple(found))
