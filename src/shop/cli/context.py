"""What a command knows of its invocation: the settings, and where the brokers are."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

if TYPE_CHECKING:
    from shop.broker import EmbeddedKafka
    from shop.settings import Settings

BROKER_ANSWER_S = 5.0  # what a command allows a broker that nobody said to wait for


@dataclass(frozen=True)
class Invocation:
    """The global options of this run of `shop`."""

    settings_file: Path | None
    debug: bool


def settings_of(context: typer.Context) -> "Settings":
    """The settings of this process; raises SettingsError."""
    from shop.settings import load_settings

    return load_settings(cast(Invocation, context.obj).settings_file)


def embedded_kafka(settings: "Settings") -> "EmbeddedKafka":
    """The broker of the data directory: as it runs there now, else as the settings want it."""
    from shop.broker import EmbeddedKafka

    directory = settings.data_dir / "kafka"
    wanted = EmbeddedKafka(directory, port=settings.broker.port, nodes=settings.broker.nodes)
    if not wanted.running:
        return wanted
    nodes = wanted.status().nodes
    return EmbeddedKafka(directory, port=nodes[0].port, nodes=len(nodes))


def with_brokers(settings: "Settings") -> "Settings":
    """The settings with kafka.bootstrap_servers filled in: the embedded broker may run at another
    port than they say."""
    if not settings.embedded_broker:
        return settings
    servers = embedded_kafka(settings).bootstrap_servers
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": servers})
    return settings.model_copy(update={"kafka": kafka})
