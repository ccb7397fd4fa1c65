"""`shop orders`: a customer's view, by HTTP."""

import json
import random
import re
import time
from dataclasses import asdict
from typing import Annotated
from urllib.parse import quote

import typer

from shop.cli.context import settings_of
from shop.cli.errors import CommandFailed

app = typer.Typer(help="Orders: send new ones, look at one and its way.")

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_NAMES = ("ana", "bia", "caio", "davi", "elisa", "gil", "iara", "joao", "lia", "noel", "rita")


def random_email() -> str:
    return f"{random.choice(_NAMES)}.{random.randrange(10_000)}@example.com"


def random_amount() -> str:
    return f"{random.random() * 5000 + 1:.2f}"


def _valid_amount(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"-?\d+(\.\d+)?", value):
        raise typer.BadParameter(f"{value!r} is not a decimal number")
    return value


@app.command()
def new(
    context: typer.Context,
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 1,
    email: Annotated[str | None, typer.Option(help="The customer; random if not given.")] = None,
    amount: Annotated[
        str | None,
        typer.Option(help="Random, 1 to 5001, if not given.", callback=_valid_amount),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Orders per second; as fast as it goes.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Send new orders to the API; print each as soon as it is accepted, with --json one object a
    line. One that gets no answer is sent again under the same Idempotency-Key."""
    from shop.cli.api import Api

    api = Api(settings_of(context))
    began = time.monotonic()
    for number in range(count):
        if rate:
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
        try:
            order = api.send_order(email or random_email(), amount or random_amount())
        except CommandFailed as error:
            raise CommandFailed(f"{number} of {count} orders accepted; {error}") from None
        if as_json:
            typer.echo(json.dumps(asdict(order)))
        else:
            typer.echo(f"{order.id}  {order.email}  {order.amount}  accepted")


@app.command()
def show(
    context: typer.Context,
    identity: Annotated[str, typer.Argument(metavar="ID", help="The order's id.")],
    wait: Annotated[
        float, typer.Option(min=0, max=60, metavar="SECONDS", help="Wait for the decision.")
    ] = 0.0,
    as_json: _Json = False,
) -> None:
    """Show an order, with its status: accepted, then approved or rejected."""
    from shop.cli.api import Api

    order = Api(settings_of(context)).order(identity, wait)
    if as_json:
        typer.echo(json.dumps(order, indent=2))
        return
    for name, value in order.items():
        typer.echo(f"{name:14} {'' if value is None else value}")


@app.command()
def timeline(
    context: typer.Context,
    identity: Annotated[str, typer.Argument(metavar="ID", help="The order's id.")],
    as_json: _Json = False,
) -> None:
    """Draw the way of an order over the topics: who sent what to where, and when."""
    from shop.cli.api import Api
    from shop.cli.timeline import drawing

    settings = settings_of(context)
    _, found = Api(settings).ask("GET", f"/orders/{quote(identity, safe='')}/timeline")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for line in drawing(found, settings.tracing.url):
        typer.echo(line)
