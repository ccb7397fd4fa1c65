"""`shop deadletters`: records that a group could not handle, by HTTP."""

import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import typer

from shop.cli.choosing import (
    WAIT_S,
    All,
    By,
    DryRun,
    ExceptionName,
    Group,
    Ids,
    Json,
    Newer,
    Older,
    Topic,
    Yes,
    choice_of,
    counted,
    none_chosen,
    say_which,
    states_of,
    this_user,
)
from shop.cli.context import settings_of
from shop.cli.errors import say
from shop.cli.output import print_table
from shop.cli.redrive import redrive
from shop.printable import printable

if TYPE_CHECKING:
    from shop.cli.api import Api

app = typer.Typer(help="Dead letters: list, show, redrive or discard them.")

_PAGE = 200  # what the API gives at once, at most


@app.command(name="list")
def list_(
    context: typer.Context,
    topic: Topic = None,
    group: Group = None,
    exception: ExceptionName = None,
    older_than: Older = None,
    newer_than: Newer = None,
    state: Annotated[
        str | None, typer.Option(help="waiting, queued, redriven or discarded.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
    as_json: Json = False,
) -> None:
    """List letters, the newest failure first."""
    api = _api(context)
    asked = choice_of(None, topic, group, exception, older_than, newer_than)
    asked |= {"limit": min(limit, _PAGE)} | ({} if state is None else {"state": state})
    path: str | None = f"/deadletters?{urlencode(asked, doseq=True)}"
    letters: list[dict[str, Any]] = []
    while path is not None and len(letters) < limit:
        _, page = api.ask("GET", path)
        letters += page["letters"]
        path = page["next"]
    if as_json:
        typer.echo(json.dumps(letters[:limit], indent=2))
    else:
        headings = ["id", "topic", "group", "key", "exception", "age", "failures", "state"]
        print_table([_row(letter) for letter in letters[:limit]], headings)
    if path is not None or len(letters) > limit:
        say(f"these are the newest {limit}; there are more, --limit shows them")


@app.command()
def show(
    context: typer.Context,
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="The letter's id.")],
    as_json: Json = False,
) -> None:
    """Show a letter: the record as it was, why it failed, and what happened to it."""
    _, letter = _api(context).ask("GET", f"/deadletters/{quote(letter_id, safe='')}")
    if as_json:
        typer.echo(json.dumps(letter, indent=2))
        return
    headers, history, trace = (letter.pop(name) for name in ("headers", "history", "stacktrace"))
    for name, value in letter.items():
        typer.echo(f"{name:15} {_text(value)}")
    for header in headers:
        typer.echo(f"{'header':15} {printable(header['name'])}: {_text(header['value'])}")
    for line in (trace or "").rstrip().split("\n") if trace else ():
        typer.echo(f"{'':15} {printable(line)}")
    for event in history:
        where = "" if event["offset"] is None else f" at [{event['partition']}]@{event['offset']}"
        by = "" if event["by"] is None else f" by {event['by']}"
        why = "" if event["detail"] is None else f": {event['detail']}"
        typer.echo(printable(f"{event['at']} {event['what']}{by}{where}{why}"))


app.command()(redrive)


@app.command()
def discard(
    context: typer.Context,
    ids: Ids = None,
    topic: Topic = None,
    group: Group = None,
    exception: ExceptionName = None,
    older_than: Older = None,
    newer_than: Newer = None,
    all_letters: All = False,
    reason: Annotated[str | None, typer.Option(help="Why; kept with the letter.")] = None,
    by: By = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Settle letters without having them handled. They stay to be looked at.

    Where a group holds a key back behind one, the key goes on when nothing stands behind it any
    more: those that do are to be redriven or discarded next."""
    api = _api(context)
    asked = choice_of(ids, topic, group, exception, older_than, newer_than, all_letters)
    asked |= {"by": by or this_user()} | ({} if reason is None else {"reason": reason})
    states = states_of(api, ids)
    plan = _delete(api, asked | {"dryRun": "true"})
    count = plan["letters"]
    if dry_run:
        _tell_behind(plan)
        typer.echo(f"{counted(count)} would be discarded. Nothing was done.")
        return
    if not count:
        raise none_chosen(states)
    if count > 1 and not yes:
        typer.confirm(f"Discard {counted(count)}?", abort=True, err=True)
    done = _delete(api, asked)
    typer.echo(f"{counted(done['letters'])} discarded")
    _tell_behind(done)


def _api(context: typer.Context) -> "Api":
    from shop.cli.api import Api

    return Api(settings_of(context))


def _delete(api: "Api", asked: dict[str, Any]) -> dict[str, Any]:
    say_which(asked)
    path = f"/deadletters?{urlencode(asked, doseq=True)}"
    return api.ask("DELETE", path, wait=WAIT_S)[1]


def _tell_behind(discard: dict[str, Any]) -> None:
    if discard["behind"]:
        typer.echo(f"held back behind them, to be redriven or discarded next: {discard['behind']}")


def _row(letter: dict[str, Any]) -> dict[str, Any]:
    shown = {name: letter[name] for name in ("id", "topic", "group", "key", "failures", "state")}
    exception = (letter["exception"] or "").rpartition(".")[2]
    return shown | {"exception": exception, "age": _since(letter["lastAt"])}


def _since(moment: str) -> str:
    seconds = max(0, int(time.time() - datetime.fromisoformat(moment).timestamp()))
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return f"base64 {value['base64']}"
    return "-" if value is None else printable(str(value))
