"""`shop users`: who has ordered, by HTTP."""

import json
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from shop.cli.context import settings_of
from shop.cli.errors import say
from shop.cli.output import print_table

app = typer.Typer(help="Users: list them.")

_PAGE = 200  # what the API gives at once, at most


@app.command(name="list")
def list_(
    context: typer.Context,
    email: Annotated[str | None, typer.Option(help="Only the one with this address.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the users, newest first."""
    from shop.cli.api import Api

    api = Api(settings_of(context))
    asked = {"limit": min(limit, _PAGE)} | ({} if email is None else {"email": email})
    path: str | None = f"/users?{urlencode(asked)}"
    users: list[dict[str, Any]] = []
    while path is not None and len(users) < limit:
        _, page = api.ask("GET", path)
        users += page["users"]
        path = page["next"]
    if as_json:
        typer.echo(json.dumps(users[:limit], indent=2))
    else:
        from shop.printable import printable

        rows = [
            {"uuid": user["uuid"], "email": printable(user["email"]), "created": user["createdAt"]}
            for user in users[:limit]
        ]
        print_table(rows, ["uuid", "email", "created"])
    if path is not None or len(users) > limit:
        say(f"these are the newest {limit}; there are more, --limit shows them")
