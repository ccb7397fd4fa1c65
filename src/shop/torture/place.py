"""Where a torture happens: brokers, an API and listeners on a data folder of their own."""

import sys
from collections.abc import Sequence
from contextlib import closing
from os import environ
from pathlib import Path
from uuid import uuid4

from sqlalchemy import text

from shop.broker import EmbeddedKafka, free_port
from shop.child import Child
from shop.databases import Databases
from shop.kafka.admin import create_topics, describe_topics, require_topics
from shop.kafka.connection import Connection
from shop.kafka.groups import describe_groups
from shop.services import SERVICE_OF_GROUP
from shop.settings import PREFIX, Broker, Database, Health, Http, Settings, Smtp, environment
from shop.topics import ALL
from shop.wiring.connection import connection

_WAIT_S = "600"  # what processes allow brokers that are killed all the time
_SESSION_MS = 6_000  # as soon as brokers allow, a dead process is noticed
ALL_BROKERS = "all-of-kafka"


class CannotTorture(Exception):
    """These brokers are not to be used; the message is one line that says why."""


def own_settings(settings: Settings, data: Path, nodes: int) -> Settings:
    """The same shop elsewhere: nothing that it writes is where the real one has its own."""
    kafka = settings.kafka.model_copy(update={"session_timeout_ms": _SESSION_MS})
    changes: dict[str, object] = {
        "data_dir": data,
        "http": Http(port=free_port()),
        "database": _own_database(settings.database),
        "smtp": Smtp(),
        "health": Health(),
        "admin_token": None,
    }
    if settings.embedded_broker:
        broker = Broker.model_validate({"port": free_port(nodes), "nodes": nodes})
        servers = ",".join(f"127.0.0.1:{broker.port + number}" for number in range(nodes))
        kafka = kafka.model_copy(update={"bootstrap_servers": servers})
        changes["broker"] = broker
    return settings.model_copy(update=changes | {"kafka": kafka})


def _own_database(database: Database) -> Database:
    """On the same PostgreSQL, in schemas of its own; else files in the data directory."""
    if not database.url.get_secret_value().startswith("postgres"):
        return Database()
    return database.model_copy(update={"schema_prefix": f"torture_{uuid4().hex[:8]}_"})


def remove_schemas(settings: Settings) -> None:
    """Those of `own_settings` on PostgreSQL. Raises StoreUnavailable."""
    with closing(Databases(settings)) as databases:
        for service in dict.fromkeys(SERVICE_OF_GROUP.values()):
            database = databases.existing(service)
            if database is not None and database.schema:
                with database.write() as connection:
                    connection.execute(text(f'DROP SCHEMA IF EXISTS "{database.schema}" CASCADE'))


class Place:
    """`settings` are those of `own_settings`. `kafka` is our own cluster, which may be killed; None
    with brokers of others."""

    def __init__(self, settings: Settings, kafka: EmbeddedKafka | None) -> None:
        self.settings = settings
        self.kafka = kafka
        self.connection: Connection = connection(settings)
        logs = settings.data_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        inherited = {k: v for k, v in environ.items() if not k.upper().startswith(PREFIX)}
        variables = inherited | environment(settings)
        listen = ("listen", "--all", "--create-topics", "--wait", _WAIT_S)
        commands = {
            "api": ("serve", "--wait", _WAIT_S),
            # One that has its partitions back at once, as that of `shop up`; one that joins anew.
            "listeners-1": (*listen, "--instance", "torture"),
            "listeners-2": listen,
        }
        self.processes = [
            Child(
                name,
                [sys.executable, "-P", "-m", "shop.cli", *command],
                variables,
                log=logs / f"{name}.log",
            )
            for name, command in commands.items()
        ]

    @property
    def victims(self) -> Sequence[str]:
        """To be drawn from: processes twice as often as a node, or as all nodes at once."""
        names = [process.name for process in self.processes]
        if self.kafka is None:
            return names
        if self.kafka.nodes == 1:
            return [*names, "kafka"]
        nodes = [f"kafka-{number + 1}" for number in range(self.kafka.nodes)]
        return [*names, *names, *nodes, ALL_BROKERS]

    def pids(self, victim: str) -> list[int]:
        """Of the processes of a victim; none while it does not run."""
        for process in self.processes:
            if process.name == victim:
                running = process.pid is not None and process.poll() is None
                return [process.pid] if running and process.pid else []
        assert self.kafka is not None
        nodes = self.kafka.pids()
        if victim in ("kafka", ALL_BROKERS):
            return list(nodes.values())
        return [pid for node, pid in nodes.items() if victim == f"kafka-{node}"]

    def create_topics(self) -> None:
        """Raises KafkaError."""
        create_topics(self.connection, ALL)


def require_unused(connection: Connection, really: bool) -> None:
    """Raises CannotTorture when a shop runs on these brokers or, unless `really`, when its topics
    there hold records; KafkaError when the brokers do not answer."""
    there = require_topics(connection, [])
    names = [topic.name for topic in ALL if topic.name in there]
    full = [
        topic.name
        for topic in (describe_topics(connection, names) if names else [])
        if any(partition.high for partition in topic.partitions)
    ]
    if full and not really:
        raise CannotTorture(
            f"{', '.join(full)} on {connection.bootstrap_servers} hold records; --really uses "
            "them all the same, and adds to them"
        )
    used = [g.name for g in describe_groups(connection, list(SERVICE_OF_GROUP)) if g.members]
    if used:
        raise CannotTorture(
            f"a shop runs on {connection.bootstrap_servers} (the groups {', '.join(used)} have "
            "members): stop it first, or wait for some seconds if it has just stopped"
        )
