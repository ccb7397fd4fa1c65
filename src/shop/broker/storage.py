"""The directory of a cluster: what it remembers of itself, and one folder per node.

cluster.json           cluster id, directory ids, first port
node-1/lock            held (flock) by the node's JVM for exactly as long as it lives
node-1/pid             of that JVM; means nothing unless the lock is held
node-1/server.properties, log4j2.properties
node-1/logs/           kafka.log (rolled, at most 50 MB) and console.log (of the last start)
node-1/data/           Kafka's; in data.formatting until it is complete
"""

import base64
import json
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from shop.broker.errors import BrokerError


@dataclass(frozen=True)
class Node:
    """One JVM that is broker and controller, and where its things are."""

    id: int
    folder: Path
    port: int
    controller_port: int

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def pid_file(self) -> Path:
        return self.folder / "pid"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def formatting(self) -> Path:
        return self.folder / "data.formatting"

    @property
    def is_closed(self) -> bool:
        """Whether the broker has closed its log files, as it does on SIGTERM; it deletes this
        mark when it starts."""
        return (self.data / ".kafka_cleanshutdown").exists()

    @property
    def log(self) -> Path:
        return self.folder / "logs" / "kafka.log"

    @property
    def console(self) -> Path:
        return self.folder / "logs" / "console.log"

    def pid(self) -> int | None:
        """What the pid file says: only to be believed while the lock is held."""
        try:
            return int(self.pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None


def nodes_of(directory: Path, port: int, count: int) -> list[Node]:
    """The nodes 1 to `count`: brokers listen at `port` and the next ones, then the controllers."""
    return [
        Node(i + 1, directory / f"node-{i + 1}", port + i, port + count + i) for i in range(count)
    ]


@dataclass(frozen=True)
class Cluster:
    """What a directory remembers, in cluster.json."""

    cluster_id: str
    directory_ids: tuple[str, ...]
    port: int

    @classmethod
    def load(cls, directory: Path) -> "Cluster | None":
        """Of the directory, None when it has none. Raises BrokerError when it is damaged."""
        path = directory / "cluster.json"
        try:
            found = json.loads(path.read_text())
            return cls(found["cluster_id"], tuple(found["directory_ids"]), int(found["port"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise BrokerError(
                f"{path} is damaged: restore it from a copy, or choose another directory"
            ) from error

    @classmethod
    def open(cls, directory: Path, port: int, nodes: int) -> "Cluster":
        """Of the directory, made if it has none, with `port` as its port from now on.

        Raises BrokerError when it was made for another number of nodes, or when it has several
        nodes and other ports: those know each other by their ports.
        """
        known = cls.load(directory)
        if known is None:
            known = cls(_kafka_uuid(), tuple(_kafka_uuid() for _ in range(nodes)), port)
        if len(known.directory_ids) != nodes:
            made = len(known.directory_ids)
            raise BrokerError(
                f"{directory} was made for {made} node(s), not {nodes}: start it with {made},"
                " wipe it, or choose another directory"
            )
        if nodes > 1 and known.port != port:
            raise BrokerError(
                f"{directory} was made for port {known.port}, and the ports of a cluster cannot"
                f" change: start it with {known.port}, wipe it, or choose another directory"
            )
        opened = cls(known.cluster_id, known.directory_ids, port)
        temporary = directory / "cluster.json.new"
        temporary.write_text(json.dumps(asdict(opened), indent=1) + "\n")
        temporary.replace(directory / "cluster.json")
        return opened

    def voters(self, nodes: list[Node], host: str) -> str:
        """As StorageTool takes it for --initial-controllers."""
        return ",".join(
            f"{node.id}@{host}:{node.controller_port}:{directory_id}"
            for node, directory_id in zip(nodes, self.directory_ids, strict=True)
        )


def needs_format(node: Node) -> bool:
    """Whether the node has no formatted data folder; what a format that did not finish left
    behind is deleted. Raises BrokerError when that would delete records."""
    metadata = node.data / "meta.properties"
    if metadata.is_file() and (node.data / "__cluster_metadata-0").is_dir():
        return False
    if any(segment.stat().st_size for segment in node.data.glob("*/*.log")):
        raise BrokerError(
            f"{node.data} holds records, but its {metadata.name} or metadata log is gone:"
            " restore them from a copy, or choose another directory"
        )
    for leftover in (node.data, node.formatting):
        if leftover.exists():
            shutil.rmtree(leftover)
    return True


def recorded_nodes(directory: Path) -> list[Node] | None:
    """The nodes of the directory as it was last started; None when it never was."""
    known = Cluster.load(directory)
    return nodes_of(directory, known.port, len(known.directory_ids)) if known else None


def delete(directory: Path) -> None:
    """Delete what this package keeps in the directory, and the directory if that was all.
    Raises BrokerError."""
    try:
        for folder in directory.glob("node-[1-9]"):
            shutil.rmtree(folder)
        (directory / "cluster.json").unlink(missing_ok=True)
    except OSError as error:
        raise BrokerError(
            f"cannot delete {error.filename} ({error.strerror}): delete it by hand"
        ) from error
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


def _kafka_uuid() -> str:
    """As org.apache.kafka.common.Uuid writes it, without the leading dash of an option."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
