import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated

import typer

from shop.cli.context import BROKER_ANSWER_S, settings_of, with_brokers
from shop.cli.errors import CommandFailed

if TYPE_CHECKING:
    from shop.kafka.browse import RawRecord, TopicReader

_LAST = 10  # records that are shown where nobody says from where
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _valid_start(value: str | None) -> str | None:
    if value is not None and value not in ("beginning", "end") and not value.isdecimal():
        try:
            moment_of(value)
        except ValueError:
            raise typer.BadParameter(
                f"{value!r} is no beginning, end, offset, time (2026-11-22T12:30) or age (10m)"
            ) from None
    return value


def moment_of(text: str) -> int:
    """Milliseconds since the epoch of an ISO time, local unless it names a zone, or of an age such
    as 10m. Raises ValueError."""
    if age := _AGE.fullmatch(text):
        moment = time.time() - float(age[1]) * _SECONDS[age[2]]
    else:
        try:
            moment = datetime.fromisoformat(text).timestamp()
        except OverflowError as error:
            raise ValueError(str(error)) from None
    return max(0, round(moment * 1000))


def tail(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The topic.")],
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="START",
            callback=_valid_start,
            help="beginning, end, an offset, a time (2026-11-22T12:30, local unless it names a "
            "zone) or an age (30s, 10m, 2h, 1d). Not given: the last records.",
        ),
    ] = None,
    partition: Annotated[
        list[int] | None, typer.Option(min=0, help="Only this partition; may be repeated.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Only records with this key.")] = None,
    correlation_id: Annotated[
        str | None, typer.Option(help="Only records whose correlation id has this in it.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", "-n", min=1, help=f"At most so many; {_LAST} where --from is not given."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> None:
    """Show the records of a topic: the last ones, or all from somewhere on.

    Those of several partitions are shown in the order of their time. It joins no group."""
    from shop.cli.records import readable
    from shop.kafka.browse import TopicReader
    from shop.kafka.errors import TopicMissing
    from shop.topics import ALL
    from shop.wiring.connection import connection

    known = next((topic for topic in ALL if topic.name == name), None)

    def wanted(record: "RawRecord") -> bool:
        if key is not None and record.key != key.encode("utf-8", "surrogateescape"):
            return False
        return correlation_id is None or readable(record, name, known).mentions(correlation_id)

    brokers = connection(with_brokers(settings_of(context)))
    try:
        reader = TopicReader(brokers, name, sorted(set(partition or ())), BROKER_ANSWER_S)
    except TopicMissing as error:
        raise CommandFailed(f"{error}; `shop topics list` shows those that do") from None
    try:
        for record in _records(reader, start, count, follow, wanted):
            shown = readable(record, name, known)
            typer.echo(shown.json() if as_json else shown.line())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        reader.close()


def _records(
    reader: "TopicReader",
    start: str | None,
    count: int | None,
    follow: bool,
    wanted: "Callable[[RawRecord], bool]",
) -> "Iterator[RawRecord]":
    coming = filter(wanted, reader.follow()) if follow else iter(())
    if start is None:
        yield from reader.last(count or _LAST, wanted)
        yield from coming
    else:
        yield from islice(chain(filter(wanted, reader.read(_starts(reader, start))), coming), count)


def _starts(reader: "TopicReader", start: str) -> Mapping[int, int]:
    if start == "beginning":
        return reader.beginning
    if start == "end":
        return reader.end
    return reader.at_offset(int(start)) if start.isdecimal() else reader.at_time(moment_of(start))
