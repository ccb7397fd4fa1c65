"""Plain tables, on a terminal and in a file."""

import sys
from collections.abc import Mapping, Sequence

from shop.printable import printable

_WIDE = 1000  # columns, where no terminal cuts the lines


def print_table(rows: Sequence[Mapping[str, object]], headings: Sequence[str]) -> None:
    """`rows` by heading; numbers (and `-` for none) go to the right, the first column is never
    cut. Each value of a list has a line of its own. What would steer a terminal is escaped."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, heading in enumerate(headings):
        numbers = all(isinstance(row[heading], int | float) or row[heading] == "-" for row in rows)
        table.add_column(
            heading,
            justify="right" if rows and numbers else "left",
            no_wrap=number == 0,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(_shown(row[heading]) for heading in headings))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    console.print(table)


def _shown(value: object) -> str:
    from rich.markup import escape

    if isinstance(value, list):
        return "\n".join(map(_shown, value))
    return "" if value is None else escape(printable(str(value)))
