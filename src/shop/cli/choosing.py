"""Which letters a command is about, and who gives it."""

import getpass
import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from shop.cli.errors import CommandFailed
from shop.cli.tail import moment_of
from shop.printable import printable

if TYPE_CHECKING:
    from shop.cli.api import Api

WAIT_S = 60.0  # for the API, which may have to mark very many
_AT_ONCE = 200  # ids in a URL, and letters in an answer


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


def states_of(api: "Api", ids: list[str] | None) -> list[str]:
    """Of these letters; raises CommandFailed where one is not there."""
    wanted = list(dict.fromkeys(ids or ()))
    states: dict[str, str] = {}
    for at in range(0, len(wanted), _AT_ONCE):
        asked = {"ids": wanted[at : at + _AT_ONCE], "limit": _AT_ONCE}
        _, page = api.ask("GET", f"/deadletters?{urlencode(asked, doseq=True)}")
        states |= {letter["id"]: letter["state"] for letter in page["letters"]}
    for id_ in wanted:
        if id_ not in states:
            raise CommandFailed(f"there is no letter with the id {printable(id_)}")
    return list(states.values())


def none_chosen(states: list[str], hint: str = "") -> CommandFailed:
    """`states` of the letters that were named; `hint`: what can be done about settled ones."""
    if not states or "waiting" in states:
        return CommandFailed("no letter that waits is chosen; `shop deadletters list` shows all")
    hint = hint if {"redriven", "discarded"}.intersection(states) else ""
    if len(states) == 1:
        return CommandFailed(f"this letter is {states[0]}{hint}")
    told = ", ".join(f"{count} {state}" for state, count in sorted(Counter(states).items()))
    return CommandFailed(f"none of these letters waits: {told}{hint}")


def counted(count: int) -> str:
    return f"{count} letter{'' if count == 1 else 's'}"


def this_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return "unknown"
