"""`shop topics`: what is on the brokers. `tail` and `send` have files of their own."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from shop.cli import send, tail
from shop.cli.context import BROKER_ANSWER_S, settings_of, with_brokers
from shop.cli.errors import CommandFailed
from shop.cli.output import print_table

if TYPE_CHECKING:
    from shop.kafka.connection import Connection

app = typer.Typer(help="The topics: create, list, describe, tail, send.")

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _connection(context: typer.Context) -> "Connection":
    from shop.wiring.connection import connection

    return connection(with_brokers(settings_of(context)))


@app.command()
def create(context: typer.Context) -> None:
    """Create the topics of the shop that do not exist yet."""
    from shop.kafka.admin import create_topics
    from shop.topics import ALL

    connection = _connection(context)
    connection.metadata(BROKER_ANSWER_S)
    created = create_topics(connection, ALL)
    for name in created:
        typer.echo(f"created {name}")
    if not created:
        typer.echo(f"all {len(ALL)} topics exist already")


@app.command(name="list")
def list_(context: typer.Context, as_json: _Json = False) -> None:
    """List all topics on the brokers, with how many records each holds."""
    from shop.kafka.admin import describe_topics

    rows = [
        {
            "topic": topic.name,
            "partitions": len(topic.partitions),
            "replication": max((len(p.replicas) for p in topic.partitions), default=0),
            "records": sum(p.records for p in topic.partitions),
        }
        for topic in describe_topics(_connection(context), timeout=BROKER_ANSWER_S)
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_table(rows, ["topic", "partitions", "replication", "records"])


@app.command()
def describe(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Topics; all if none is named.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Show each partition: leader, replicas, those in sync, first and next offset."""
    from shop.kafka.admin import describe_topics
    from shop.kafka.errors import TopicMissing

    try:
        topics = describe_topics(_connection(context), names or (), BROKER_ANSWER_S)
    except TopicMissing as error:
        raise CommandFailed(f"{error}; `shop topics list` shows those that do") from None
    if as_json:
        typer.echo(json.dumps([asdict(topic) for topic in topics], indent=2))
        return
    rows = [
        {
            "topic": topic.name,
            "partition": partition.number,
            "leader": "none" if partition.leader is None else partition.leader,
            "replicas": ",".join(map(str, partition.replicas)),
            "in sync": ",".join(map(str, partition.in_sync)),
            "first offset": partition.low,
            "next offset": partition.high,
        }
        for topic in topics
        for partition in topic.partitions
    ]
    headings = ["topic", "partition", "leader", "replicas", "in sync", "first offset"]
    print_table(rows, [*headings, "next offset"])


app.command()(tail.tail)
app.command()(send.send)
