"""What Kafka is told: server.properties and log4j2.properties, as text.

All paths are relative to the node's folder, which the JVM gets as its working directory: no path
needs escaping, and the data can be moved.
"""

from shop.broker.ports import HOST
from shop.broker.storage import Node


def server_properties(node: Node, nodes: list[Node], *, flush: bool = True) -> str:
    """The configuration of one node, a broker and controller in one process.

    flush: whether an acknowledged record is on the disk, and not only with the kernel. Either way
    it survives the death of the broker's process (kill -9), as the kernel still has it. Without
    flush a crash of the operating system or a power cut loses what the kernel had not written
    yet, some 30 s at worst, and copies on other nodes of the same machine do not help. Flushing
    costs one fsync per batch and partition.
    """
    copies = min(3, len(nodes))
    in_sync = 2 if copies == 3 else 1
    listeners = f"PLAINTEXT://{HOST}:{node.port},CONTROLLER://{HOST}:{node.controller_port}"
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": node.id,
        "listeners": listeners,
        "advertised.listeners": listeners,
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.quorum.bootstrap.servers": ",".join(
            f"{HOST}:{other.controller_port}" for other in nodes
        ),
        "log.dirs": node.data.name,
        # A broker that was killed is taken back only when its old session has ended: with Kafka's
        # 9 s, a start after kill -9 takes 11 s. On one machine there is no network to wait for.
        "broker.session.timeout.ms": 2000 if len(nodes) == 1 else 3000,
        "broker.heartbeat.interval.ms": 500,
        # Topics are made on purpose, or a misspelt name would become one.
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
        # Kafka's 50 partitions each are for large clusters, and take seconds to make.
        "offsets.topic.num.partitions": 3,
        "transaction.state.log.num.partitions": 3,
        "share.coordinator.state.topic.num.partitions": 3,
        # A first consumer gets its partitions at once, not after 3 s of waiting for others.
        "group.initial.rebalance.delay.ms": 0,
        # Nothing is deleted for its age or size unless its topic says so (retention.ms), and a
        # group that was away for a year still finds its position (Kafka: 7 days).
        "log.retention.ms": -1,
        "log.retention.bytes": -1,
        "offsets.retention.minutes": 366 * 24 * 60,
        # A record is limited to Kafka's 1 MB (message.max.bytes) unless its topic sets more
        # (max.message.bytes); replication has to carry the largest of those.
        "replica.fetch.max.bytes": 16 * 1024 * 1024,
        "replica.fetch.response.max.bytes": 32 * 1024 * 1024,
        # Kafka takes 128 MB of heap for compaction at once; this is good for 600,000 keys a run.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }
    if flush:
        settings["log.flush.interval.messages"] = 1
    return "".join(f"{name}={value}\n" for name, value in settings.items())


LOG4J2 = """\
status=error
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName=logs/kafka.log
appender.file.filePattern=logs/kafka.%i.log
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d{ISO8601} %p %m (%c{1})%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=4
rootLogger.level=info
rootLogger.appenderRef.file.ref=file
"""
