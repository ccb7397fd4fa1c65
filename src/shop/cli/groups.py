"""`shop groups`: who reads which topics, how far they are, and handing over from one to another."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shop.cli.context import BROKER_ANSWER_S, settings_of, with_brokers
from shop.cli.errors import CommandFailed, say
from shop.cli.output import print_table
from shop.printable import printable

if TYPE_CHECKING:
    from shop.containers import Shop
    from shop.groups import Group, Groups, Standing
    from shop.handover import Step

app = typer.Typer(help="The consumer groups: list, describe, hand over from one to another.")

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _shop(context: typer.Context) -> "Shop":
    from shop.containers import Shop

    return Shop(settings=with_brokers(settings_of(context)))


def _groups(shop: "Shop") -> "Groups":
    from shop.groups import Groups
    from shop.services import SERVICE_OF_GROUP

    return Groups(shop.connection(), shop.databases(), SERVICE_OF_GROUP, BROKER_ANSWER_S)


@app.command(name="list")
def list_(context: typer.Context, as_json: _Json = False) -> None:
    """List all groups: those on the brokers, whosever they are, and ours that have stopped."""
    rows = [
        {
            "group": group.name,
            "service": group.service,
            "state": group.state.state,
            "members": len(group.state.members),
            "topics": len({standing.partition.topic for standing in group.standings}),
            "lag": group.lag,
        }
        for group in _groups(_shop(context)).all()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_table(_dashed(rows), ["group", "service", "state", "members", "topics", "lag"])


@app.command()
def describe(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Groups.")],
    as_json: _Json = False,
) -> None:
    """Show where a group stands in each partition, and who reads it.

    The lag is counted from the position in the database, for a group that has one there, else from
    the offset committed in Kafka."""
    groups = _groups(_shop(context)).describe(list(dict.fromkeys(names)))
    for group in groups:
        if not group.known:
            raise CommandFailed(
                f"there is no group {group.name}; `shop groups list` shows those there are"
            )
    if as_json:
        typer.echo(json.dumps([_as_json(group) for group in groups], indent=2))
        return
    for number, group in enumerate(groups):
        typer.echo(("\n" if number else "") + _headline(group))
        rows = _dashed([_row(standing) for standing in group.standings])
        headings = ["topic", "partition", "database", "committed", "end", "lag", "member"]
        if rows:
            print_table(rows, headings)


@app.command(name="hand-over")
def hand_over(
    context: typer.Context,
    giver: Annotated[str, typer.Argument(help="The group that was doing the work.")],
    taker: Annotated[str, typer.Argument(help="The group that goes on with it.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Let another group go on exactly where one has stopped: a Java service for ours, or back.

    Both must be stopped. Each record is then handled once: by the giver before its position, by the
    taker after it. `shop up --without GROUP` runs the shop without the group that has given."""
    from shop.handover import HandOver, HandOverRefused
    from shop.services import SERVICE_OF_GROUP
    from shop.wiring.unfinished import UNFINISHED

    shop = _shop(context)
    over = HandOver(
        shop.connection(), shop.databases(), shop.registry(), SERVICE_OF_GROUP, UNFINISHED,
        giver, taker, BROKER_ANSWER_S,
    )  # fmt: skip
    try:
        plan = over.plan()
        if not dry_run:
            over.carry_out(plan)
    except HandOverRefused as error:
        raise CommandFailed(printable(str(error))) from None
    if not plan.taker_seen:
        say(f"no group {taker} was seen before; is its name right?")
    _show_steps(plan.steps, as_json)
    if not as_json:
        typer.echo("Nothing was changed." if dry_run else _what_now(giver, taker))


def _what_now(giver: str, taker: str) -> str:
    from shop.services import SERVICE_OF_GROUP

    others = f"; `shop up --without {giver}` runs the others" if giver in SERVICE_OF_GROUP else ""
    return (
        f"Start {taker} now, and {giver} no more{others}.\n"
        f"To go back, stop {taker}; then `shop groups hand-over {taker} {giver}`."
    )


def _show_steps(steps: "Sequence[Step]", as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "topic": step.partition.topic,
            "partition": step.partition.number,
            "before": step.before,
            "now": step.now,
            "note": step.note,
        }
        for step in steps
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    print_table(_dashed(rows), ["topic", "partition", "before", "now", "note"])


def _headline(group: "Group") -> str:
    ours = f", of the service {group.service}" if group.service else ""
    members = group.state.members
    count = f"{len(members)} member{'' if len(members) == 1 else 's'}"
    return f"{printable(group.name)}: {group.state.state}, {count}{ours}"


def _row(standing: "Standing") -> dict[str, Any]:
    reader = standing.reader
    return {
        "topic": standing.partition.topic,
        "partition": standing.partition.number,
        "database": standing.stored,
        "committed": standing.committed,
        "end": standing.bounds.high if standing.bounds else None,
        "lag": standing.lag,
        "member": f"{reader.client_id} at {reader.host}" if reader else None,
    }


def _as_json(group: "Group") -> dict[str, Any]:
    return {
        "group": group.name,
        "service": group.service,
        "state": group.state.state,
        "lag": group.lag,
        "members": [
            {
                "clientId": member.client_id,
                "host": member.host,
                "instance": member.instance,
                "partitions": [f"{topic}[{number}]" for topic, number in member.partitions],
            }
            for member in group.state.members
        ],
        "partitions": [
            _row(standing) | {"begin": standing.bounds.low if standing.bounds else None}
            for standing in group.standings
        ],
    }


def _dashed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: "-" if v is None else v for name, v in row.items()} for row in rows]
