"""`shop deadletters redrive`, by HTTP."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

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
from shop.printable import printable

if TYPE_CHECKING:
    from shop.cli.api import Api

_LOOK_S = 0.1
_HINT_S = 5.0  # without any progress
_SLOWEST, _FASTEST = 0.001, 1_000_000  # rates that the API takes


def _rate(value: float | None) -> float | None:
    if value is not None and not _SLOWEST <= value <= _FASTEST:  # nan is in no range
        raise typer.BadParameter(f"{value:g} is not from {_SLOWEST:g} to {_FASTEST:,} a second")
    return value


def redrive(
    context: typer.Context,
    ids: Ids = None,
    topic: Topic = None,
    group: Group = None,
    exception: ExceptionName = None,
    older_than: Older = None,
    newer_than: Newer = None,
    all_letters: All = False,
    rate: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", callback=_rate, help="At most so many letters a second."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="TOPIC", help="For letters that tell no topic of the shop."),
    ] = None,
    to_group: Annotated[
        str | None,
        typer.Option(
            metavar="GROUP", help="For letters of a group that does not read the topic; or all."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also letters that are redriven or discarded.")
    ] = False,
    by: By = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Have letters handled again, by the group that could not; wait until they are on their way.

    They keep their event ids, so what was handled meanwhile has no effect twice. What fails again
    comes back as the same letter."""
    from shop.cli.api import Api

    api = Api(settings_of(context))
    asked = choice_of(ids, topic, group, exception, older_than, newer_than, all_letters)
    asked |= {"by": by or this_user(), "again": again}
    asked |= {} if rate is None else {"rate": rate}
    asked |= {} if to is None else {"to": to}
    asked |= {} if to_group is None else {"toGroup": to_group}
    states = states_of(api, ids)
    plan = _post(api, asked | {"dryRun": True})
    if not as_json:
        _tell_plan(plan)
    if dry_run:
        typer.echo(json.dumps(plan, indent=2) if as_json else "Nothing was done.")
        return
    if not plan["letters"]:
        raise none_chosen(states, "; --again redrives what is settled")
    if plan["letters"] > 1 and not yes:
        typer.confirm(f"Redrive {counted(plan['letters'])}?", abort=True, err=True)
    begun = _post(api, asked, key=str(uuid4()))
    where = api.url(f"/deadletters/redrives/{begun['id']}")
    try:
        done = _follow(api, begun)
    except KeyboardInterrupt:
        say(f"the redrive goes on without this command; {where} tells how far it is")
        raise typer.Exit(130) from None
    typer.echo(json.dumps(done, indent=2) if as_json else f"{counted(done['redriven'])} redriven")


def _post(api: "Api", asked: dict[str, Any], key: str = "") -> dict[str, Any]:
    say_which(asked)
    body = json.dumps(asked)
    return api.ask("POST", "/deadletters/redrive", body, wait=WAIT_S, key=key)[1]


def _tell_plan(plan: dict[str, Any]) -> None:
    for to in plan["destinations"]:
        whom = printable(to["group"]) if to["group"] else "all groups"
        typer.echo(f"{counted(to['letters'])} to {whom} on {printable(to['topic'])}")
    if plan["behind"]:
        typer.echo(f"held back behind another of them: {plan['behind']}")
    if plan["withoutTopic"]:
        typer.echo(
            f"{counted(plan['withoutTopic'])} left out: their topic is not told, or none of the "
            "shop's; --to names one"
        )


def _follow(api: "Api", redrive: dict[str, Any]) -> dict[str, Any]:
    """The redrive once all its letters are on their way."""
    hint_due = time.monotonic() + _HINT_S
    with _bar(redrive["letters"]) as show_progress:
        while redrive["state"] != "finished":
            time.sleep(_LOOK_S)
            _, redrive = api.ask("GET", f"/deadletters/redrives/{redrive['id']}")
            show_progress(redrive["redriven"])
            if not redrive["redriven"] and time.monotonic() > hint_due:
                say("nothing is redriven yet; the API's log says why. Ctrl-C ends the waiting only")
                hint_due = float("inf")
    return redrive


@contextmanager
def _bar(letters: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda redriven: None
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=letters)
        yield lambda redriven: progress.update(task, completed=redriven)
