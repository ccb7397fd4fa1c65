"""`shop reports`: a report for every user, by HTTP."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote
from uuid import uuid4

import typer

from shop.cli.context import settings_of
from shop.cli.errors import CommandFailed, say

if TYPE_CHECKING:
    from shop.cli.api import Api

app = typer.Typer(help="Reports: have one written for every user, show one.")

_LOOK_S = 0.1
_HINT_S = 5.0  # without any progress


@app.command()
def generate(
    context: typer.Context,
    wait: Annotated[
        bool,
        typer.Option("--wait/--no-wait", help="Ctrl-C ends only the waiting; the run goes on."),
    ] = True,
) -> None:
    """Have a report written for every user, and wait until all are there."""
    from shop.cli.api import Api

    settings = settings_of(context)
    api = Api(settings)
    _, run = api.ask("POST", "/reports", key=str(uuid4()))
    where = api.url(f"/reports/{run['id']}")
    if not wait:
        typer.echo(f"requested; {where} tells how far it is")
        return
    try:
        written = follow(api, run["id"], lambda: time.sleep(_LOOK_S))["written"]
    except KeyboardInterrupt:
        say(f"the run goes on without this command; {where} tells how far it is")
        raise typer.Exit(130) from None
    typer.echo(f"{written} reports written to {(settings.data_dir / 'reports').absolute()}")


@app.command()
def show(
    context: typer.Context,
    uuid: Annotated[str, typer.Argument(metavar="UUID", help="The user's uuid.")],
    html: Annotated[
        bool, typer.Option("--html", help="Print where a browser shows it as a page.")
    ] = False,
) -> None:
    """Show the newest report of a user."""
    from shop.cli.api import Api

    api = Api(settings_of(context))
    path = f"/users/{quote(uuid, safe='')}/report"
    text = api.text(path)
    typer.echo(api.url(f"{path}?format=html") if html else text, nl=html)


def follow(api: "Api", run_id: str, between: Callable[[], None]) -> dict[str, Any]:
    """The run once it is finished, shown on the way; `between` is called between two looks at it.
    Raises CommandFailed when it is refused."""
    hint_due = time.monotonic() + _HINT_S
    with _bar() as show_progress:
        while True:
            _, run = api.ask("GET", f"/reports/{run_id}")
            show_progress(run)
            if run["state"] == "refused":
                raise CommandFailed(f"the reports are refused: {run['reason']}")
            if run["state"] == "finished":
                return run
            if not run["written"] and time.monotonic() > hint_due:
                say(
                    "nothing is written yet: do the groups batch and reports run? "
                    "Ctrl-C ends the waiting only"
                )
                hint_due = float("inf")
            between()


@contextmanager
def _bar() -> Iterator[Callable[[dict[str, Any]], None]]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda run: None
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        task = progress.add_task("requested", total=None)

        def show(run: dict[str, Any]) -> None:
            state, users = run["state"], run["users"]
            progress.update(task, description=state, completed=run["written"], total=users)

        yield show
