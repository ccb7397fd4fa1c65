"""`shop broker`: the embedded Kafka by itself."""

from contextlib import suppress
from typing import Annotated

import typer

from shop.cli.context import embedded_kafka, settings_of
from shop.cli.errors import CommandFailed, say

app = typer.Typer(help="The embedded Kafka by itself: start, stop, status, wipe.")


@app.command()
def start(
    context: typer.Context,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=9, help="How many; 3 make a cluster.")
    ] = None,
) -> None:
    """Start Kafka and leave it running; `shop up` and all others then use it.

    Of a cluster of which some nodes run, it starts the others."""
    from shop.broker import EmbeddedKafka, terminal_progress

    settings = settings_of(context)
    kafka = embedded_kafka(settings)
    if kafka.running:
        if nodes not in (None, kafka.nodes):
            raise CommandFailed(f"Kafka runs with {kafka.nodes} node(s), not {nodes}")
        if not kafka.ended():
            say(f"Kafka already runs at {kafka.bootstrap_servers}")
            return
    else:
        kafka = EmbeddedKafka(
            settings.data_dir / "kafka",
            port=settings.broker.port,
            nodes=nodes or settings.broker.nodes,
        )
    with terminal_progress() as progress:
        kafka.start(detached=True, progress=progress)
    typer.echo(kafka.bootstrap_servers)


@app.command()
def stop(context: typer.Context) -> None:
    """Stop the Kafka of this data directory, whoever started it."""
    kafka = embedded_kafka(settings_of(context))
    if not kafka.running:
        say(f"no Kafka runs in {kafka.directory}")
        return
    kafka.stop()


@app.command()
def status(context: typer.Context) -> None:
    """Show which nodes run; exit code 1 when one does not, or does not answer."""
    kafka = embedded_kafka(settings_of(context))
    seen = kafka.status()
    for node in seen.nodes:
        state = "does not run" if node.pid is None else f"pid {node.pid}"
        if node.pid is not None:
            state += ", answers" if node.answers else ", does not answer"
        typer.echo(f"node {node.node}  127.0.0.1:{node.port}  {state}")
    typer.echo(f"data in {kafka.directory}")
    if not (seen.running and seen.answers):
        raise typer.Exit(1)


@app.command()
def wipe(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete all topics and records for ever.

    The services' databases stay. They remember how far each group has come in topics that are then
    gone, so no group starts until they are deleted too."""
    from shop.broker import BrokerError, EmbeddedKafka

    data = settings_of(context).data_dir
    kafka = EmbeddedKafka(data / "kafka")
    with suppress(BrokerError):  # a damaged directory cannot say
        if kafka.running:
            raise CommandFailed("Kafka runs; stop it first, with `shop broker stop`")
    if not yes:
        typer.confirm(f"Delete all topics and records in {kafka.directory}?", abort=True)
    kafka.wipe()
    if any(data.glob("*.db")):
        say(f"the databases remember positions that are gone: delete {data}/*.db* as well")
