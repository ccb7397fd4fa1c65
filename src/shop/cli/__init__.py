"""The `shop` command. What a command needs is imported when it runs, so that each starts fast."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from shop.cli import (
    broker,
    deadletters,
    demo,
    groups,
    orders,
    pix,
    processes,
    reports,
    settings,
    stream,
    topics,
    torture,
    up,
    users,
    verify,
)
from shop.cli.context import Invocation
from shop.cli.errors import report

app = typer.Typer(
    help="An e-commerce of services that meet only at Kafka topics. Begin with `shop demo`.",
    epilog="Settings are environment variables (SHOP_…), or a TOML file; `shop settings` lists "
    "them. Exit codes: 0 done, 1 it could not be done, 2 used wrongly, 3 a listener gave up.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_ALL, _PARTS, _USE, _KAFKA = "The whole shop", "One process of it", "Using it", "Kafka"
app.command(rich_help_panel=_ALL)(demo.demo)
app.command(rich_help_panel=_ALL)(up.up)
app.command(rich_help_panel=_ALL)(verify.verify)
app.command(rich_help_panel=_ALL)(torture.torture)
app.command(rich_help_panel=_PARTS)(processes.serve)
app.command(rich_help_panel=_PARTS)(processes.listen)
app.command(rich_help_panel=_PARTS)(stream.stream)
app.add_typer(orders.app, name="orders", rich_help_panel=_USE)
app.add_typer(users.app, name="users", rich_help_panel=_USE)
app.add_typer(reports.app, name="reports", rich_help_panel=_USE)
app.add_typer(pix.app, name="pix", rich_help_panel=_USE)
app.command(name="settings", rich_help_panel=_USE)(settings.settings)
app.add_typer(deadletters.app, name="deadletters", rich_help_panel=_USE)
app.add_typer(topics.app, name="topics", rich_help_panel=_KAFKA)
app.add_typer(groups.app, name="groups", rich_help_panel=_KAFKA)
app.add_typer(broker.app, name="broker", rich_help_panel=_KAFKA)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"shop {version('shop')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    settings_file: Annotated[
        Path | None,
        typer.Option("--settings", metavar="FILE", help="A TOML file with settings."),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    context.obj = Invocation(settings_file, debug)


def main() -> None:
    """Run the command line of this process, and exit with its code."""
    try:
        app(prog_name="shop")
    except Exception as error:
        sys.exit(report(error, debug="--debug" in sys.argv))
