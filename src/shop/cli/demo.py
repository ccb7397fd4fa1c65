"""`shop demo`: the whole shop, some orders followed to their end, reports and payments."""

from typing import TYPE_CHECKING

import typer

from shop.cli.context import embedded_kafka, settings_of
from shop.cli.errors import say

if TYPE_CHECKING:
    from shop.cli.following import Way
    from shop.settings import Settings

_ORDERS = 10


def demo(context: typer.Context) -> None:
    """Run the whole shop, follow 10 orders to the end, show reports and payments, and stop.

    On the data directory of the settings, where the orders, mails and reports then are."""
    from shop.cli.following import follow
    from shop.cli.stack import running
    from shop.cli.tour import Tour

    settings = _with_free_ports(settings_of(context))
    logs = settings.data_dir / "logs"
    typer.echo("Starting Kafka, the API and the listeners ...")
    try:
        with running(settings, logs) as stack:
            seconds = stack.wait_until_ready()
            typer.echo(f"Ready after {seconds:.1f} s. Sending {_ORDERS} orders.\n")
            ways = follow(stack, _ORDERS)
            typer.echo(_summary(settings, ways))
            tour, first = Tour(stack), ways[0].order
            for part in (tour.timeline(first.id), tour.reports(first.email), tour.payments()):
                typer.echo("\n".join(["", *part]))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    typer.echo(_where(settings))


def _with_free_ports(settings: "Settings") -> "Settings":
    """A demo never fails for a port; nor does it send mail to a real server."""
    from shop.broker import free_port
    from shop.broker.locks import is_held
    from shop.broker.ports import is_free
    from shop.cli.stack import lock_of
    from shop.settings import Smtp

    changes: dict[str, object] = {"smtp": Smtp()}
    if is_held(lock_of(settings.data_dir)):  # a shop runs there, and this one will be refused
        return settings
    if not is_free(settings.http.port):
        port = free_port()
        say(f"port {settings.http.port} is taken; the API of this demo is at {port}")
        changes["http"] = settings.http.model_copy(update={"port": port})
    broker = settings.broker
    nodes = range(2 * broker.nodes)
    ours = settings.embedded_broker and not embedded_kafka(settings).running
    if ours and not all(is_free(broker.port + number) for number in nodes):
        port = free_port(broker.nodes)
        say(f"port {broker.port} or the next is taken; the Kafka of this demo is at {port}")
        changes["broker"] = broker.model_copy(update={"port": port})
    return settings.model_copy(update=changes)


def _summary(settings: "Settings", ways: "list[Way]") -> str:
    mail = ways[0].mail
    assert mail is not None
    rejected = sum(way.status == "rejected" for way in ways)
    raw = mail.path.read_text(errors="replace").rstrip().replace("\n", "\n  ")
    return f"""
{len(ways)} orders accepted: {len(ways) - rejected} approved, {rejected} rejected \
({settings.fraud.limit} or more is fraud), {len(ways)} mailed.

The mail of the first, as it arrived:
  {raw}"""


def _where(settings: "Settings") -> str:
    data = settings.data_dir.absolute()
    return f"""
Stopped. Data: {data}
Mail:    {data}/mail
Reports: {data}/reports
Logs:    {data}/logs
`shop up` runs it until Ctrl-C, `shop orders new` sends orders, `shop --help` tells the rest."""
