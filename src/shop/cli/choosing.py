"""Which letters a command is about, and who gives it."""

import getpass
import time
from typing import Annotated, Any

import typer

from shop.cli.errors import CommandFailed
from shop.cli.tail import moment_of

WAIT_S = 60.0  # for the API, which may have to mark very many


def _age(value: str | None) -> str | None:
    try:
        if value is not None:
            moment_of(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is no age (10m) or time (2026-11-22T12:30)") from None
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Only these letters.")]
Topic = Annotated[str | None, typer.Option(help="Only records of this topic.")]
Group = Annotated[str | None, typer.Option(help="Only what this group could not handle.")]
ExceptionName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only with this in the exception's full name.")
]
Older = Annotated[
    str | None,
    typer.Option(
        metavar="AGE", callback=_age, help="Only what last failed before that: 30s, 10m, 2h, 1d."
    ),
]
Newer = Annotated[
    str | None, typer.Option(metavar="AGE", callback=_age, help="Only what failed since.")
]
All = Annotated[bool, typer.Option("--all", help="All letters that wait.")]
By = Annotated[str | None, typer.Option(metavar="NAME", help="Who does it; else this user.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]


def choice_of(
    ids: list[str] | None,
    topic: str | None,
    group: str | None,
    exception: str | None,
    older_than: str | None,
    newer_than: str | None,
    all_letters: bool = False,
) -> dict[str, Any]:
    """What is said of letters, as the API takes it."""
    said = {
        "ids": ids or None,
        "topic": topic,
        "group": group,
        "exception": exception,
        "olderThan": 0 if all_letters else _seconds(older_than),
        "newerThan": _seconds(newer_than),
    }
    return {name: value for name, value in said.items() if value is not None}


def _seconds(age: str | None) -> float | None:
    return None if age is None else max(0.0, time.time() - moment_of(age) / 1000)


def say_which(asked: dict[str, Any]) -> None:
    """Raises CommandFailed where nothing is."""
    if not asked.keys() & {"ids", "topic", "group", "exception", "olderThan", "newerThan"}:
        raise CommandFailed(
            "say which letters: ids, --topic, --group, --exception, --older-than, --newer-than "
            "or --all"
        )


def counted(count: int) -> str:
    return f"{count} letter{'' if count == 1 else 's'}"


def this_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return "unknown"
