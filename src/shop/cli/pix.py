"""`shop pix`: payments between keys, by HTTP."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote
from uuid import uuid4

import typer

from shop.cli.context import settings_of
from shop.cli.errors import CommandFailed
from shop.printable import printable

if TYPE_CHECKING:
    from shop.cli.api import Api

app = typer.Typer(help="Pix: send payments, look at one, register keys.")

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_OUTCOME_S = 10.0
_UNDECIDED = "EM_PROCESSAMENTO"


@app.command()
def send(
    context: typer.Context,
    source: Annotated[str, typer.Option("--from", metavar="KEY", help="The key that pays.")],
    target: Annotated[str, typer.Option("--to", metavar="KEY", help="The key that is paid.")],
    amount: Annotated[str, typer.Option(help="Two decimal places at most.")],
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 1,
    as_json: _Json = False,
) -> None:
    """Send payments to the API; print each with its outcome, with --json one object a line."""
    from shop.cli.api import Api

    api = Api(settings_of(context))
    body = json.dumps({"chaveOrigem": source, "chaveDestino": target, "valor": amount})
    for number in range(count):
        try:
            headers, _ = api.ask("POST", "/pix", body, key=str(uuid4()))
            where = f"{headers['Location']}?wait={_OUTCOME_S:g}"
            _, payment = api.ask("GET", where, wait=_OUTCOME_S)
        except CommandFailed as error:
            raise CommandFailed(f"{number} of {count} payments sent; {error}") from None
        if as_json:
            typer.echo(json.dumps(payment))
        else:
            shown = (payment["identifier"], source, target, amount, payment["status"])
            typer.echo("  ".join(printable(part) for part in shown))
        if payment["status"] == _UNDECIDED:
            raise CommandFailed(
                f"payment {payment['identifier']} is accepted but not decided after "
                f"{_OUTCOME_S:g} s; `shop listen --group pix` decides"
            )


@app.command()
def show(
    context: typer.Context,
    identity: Annotated[str, typer.Argument(metavar="ID", help="The payment's identifier.")],
    wait: Annotated[
        float, typer.Option(min=0, max=60, metavar="SECONDS", help="Wait for the outcome.")
    ] = 0.0,
    as_json: _Json = False,
) -> None:
    """Show a payment, with its status: EM_PROCESSAMENTO, then PROCESSADO or ERRO."""
    from shop.cli.api import Api

    query = f"?wait={wait:g}" if wait else ""
    path = f"/pix/{quote(identity, safe='')}{query}"
    _, payment = Api(settings_of(context)).ask("GET", path, wait=wait)
    if as_json:
        typer.echo(json.dumps(payment, indent=2))
        return
    for name, value in payment.items():
        typer.echo(f"{name:17} {'' if value is None else printable(str(value))}")


@app.command()
def keys(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="Register these.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """List the keys that are registered, or register those named; payments go through between
    registered ones."""
    from shop.cli.api import Api

    api = Api(settings_of(context))
    for key in _registered(api, names) if names else _listed(api):
        typer.echo(json.dumps(key) if as_json else printable(key["chave"]))


def _registered(api: "Api", names: list[str]) -> Iterator[dict[str, Any]]:
    for name in names:
        yield api.ask("POST", "/pix/keys", json.dumps({"chave": name}))[1]


def _listed(api: "Api") -> Iterator[dict[str, Any]]:
    path = "/pix/keys?limit=200"
    while path:
        _, page = api.ask("GET", path)
        yield from page["keys"]
        path = page["next"]
