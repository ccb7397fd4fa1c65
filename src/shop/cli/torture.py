"""`shop torture`: kills at random, on a shop of its own."""

import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shop.cli.context import settings_of
from shop.cli.errors import MISUSED, CommandFailed, say

if TYPE_CHECKING:
    from shop.settings import Settings
    from shop.torture import Torture

_RATE = 20  # orders a second, where nobody says how many


def torture(
    context: typer.Context,
    minutes: Annotated[float, typer.Option(min=0.05, help="How long orders flow.")] = 1.0,
    orders: Annotated[
        int | None, typer.Option(min=1, help=f"How many; {_RATE} a second if not given.")
    ] = None,
    kills: Annotated[
        int | None, typer.Option(min=0, help="How many; as many as fit if not given.")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=3, help="Of the embedded Kafka: 1 or 3.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of an earlier run: the same orders and faults.")
    ] = None,
    really: Annotated[
        bool, typer.Option("--really", help="Use brokers whose topics of the shop hold records.")
    ] = False,
) -> None:
    """Kill and freeze a shop at random while orders flow, then audit that nothing was lost.

    It runs a shop of its own, with ports, a data directory and an embedded Kafka of its own: the
    API, two processes with all listeners, one broker or three. They are killed (SIGKILL) or frozen
    for some seconds (SIGSTOP) and started again; orders are posted all the while. When all is
    caught up, `shop verify` looks for what was lost or doubled. The data directory is a temporary
    one, kept when something was found.

    It never touches the shop's own data. Where SHOP_DATABASE__URL names a PostgreSQL, it uses
    schemas of its own there. With SHOP_KAFKA__BOOTSTRAP_SERVERS it uses those brokers,
    which it never kills: the shop's topics and groups there, and no others. It refuses when a shop
    runs on them, and without --really when those topics hold records.

    Ctrl-C ends the orders and the kills; a second one ends all at once. Exit code 0: nothing was
    found, 1: something was."""
    from shop.torture import Orders, own_settings, plan

    settings = settings_of(context)
    nodes = _nodes(settings, nodes)
    chosen = random.SystemRandom().randrange(2**32) if seed is None else seed
    seconds = minutes * 60
    count = orders or round(seconds * _RATE)
    since = _since(settings, really)
    data = Path(tempfile.mkdtemp(prefix="shop-torture-"))
    say(f"seed {chosen}, data in {data}")
    own = own_settings(settings, data, nodes)
    place, brokers = _place(own, settings.embedded_broker)
    from shop.torture import Torture

    run = Torture(
        place,
        plan(chosen, seconds, place.victims, kills),
        Orders(own, count, count / seconds, chosen),
        seconds=seconds,
        command=_command(chosen, minutes, orders, kills, nodes, settings.embedded_broker),
        brokers=brokers,
        say=say,
    )
    _end_by_signals(run)
    try:
        run.run(since)
    except KeyboardInterrupt:
        run.outcome.findings.append("ended before the audit")
    _tell(run, own)


def _nodes(settings: "Settings", wanted: int | None) -> int:
    if not settings.embedded_broker and wanted is not None:
        raise CommandFailed(
            "--nodes is of the embedded Kafka, and SHOP_KAFKA__BOOTSTRAP_SERVERS names another",
            MISUSED,
        )
    if wanted == 2:
        raise CommandFailed("--nodes is 1 or 3: of two, none may fail", MISUSED)
    return wanted or settings.broker.nodes


def _since(settings: "Settings", really: bool) -> int | None:
    """What the audit is to look at on brokers of others; None: everything."""
    if settings.embedded_broker:
        return None
    from shop.torture.place import CannotTorture, require_unused
    from shop.wiring.connection import connection

    try:
        require_unused(connection(settings), really)
    except CannotTorture as error:
        raise CommandFailed(str(error)) from None
    return round(time.time() * 1000) if really else None


def _place(settings: "Settings", embedded: bool) -> tuple[Any, list[Any]]:
    from shop.broker import EmbeddedKafka
    from shop.cli.supervised_broker import Broker
    from shop.torture import Place

    if not embedded:
        return Place(settings, None), []
    broker = settings.broker
    kafka = EmbeddedKafka(settings.data_dir / "kafka", port=broker.port, nodes=broker.nodes)
    return Place(settings, kafka), [Broker(kafka)]


def _command(
    seed: int, minutes: float, orders: int | None, kills: int | None, nodes: int, embedded: bool
) -> str:
    words = ["shop torture --seed", str(seed), "--minutes", f"{minutes:g}"]
    for name, value in {
        "--orders": orders,
        "--kills": kills,
        "--nodes": nodes if embedded else None,
    }.items():
        words += [] if value is None else [name, str(value)]
    return " ".join(words)


def _end_by_signals(run: "Torture") -> None:
    def enough(_signal: int, _frame: Any) -> None:
        if run.enough.is_set():
            raise KeyboardInterrupt
        run.enough.set()
        say("no more orders and kills; Ctrl-C again ends at once, without the audit")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, enough)


def _tell(run: "Torture", own: "Settings") -> None:
    from shop.torture.place import remove_schemas

    outcome, data = run.outcome, own.data_dir
    typer.echo("\n" + "\n".join(outcome.lines()) + "\n")
    if not outcome.findings:
        remove_schemas(own)
        shutil.rmtree(data)
        typer.echo("Nothing was lost, and nothing was done twice.")
        return
    for finding in outcome.findings:
        typer.echo(finding)
    schemas = f"the schemas {own.database.schema_prefix}*"
    databases = f" and in {schemas}" if own.database.schema_prefix else ""
    typer.echo(f"\nAll is kept in {data}{databases}, what the processes said in {data}/logs.")
    raise typer.Exit(1)
