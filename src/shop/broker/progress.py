"""How a long step is shown while it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the bytes done and the bytes in all (0: not known), many times
a second and from the thread that called `start`; the last call of a step has done == total."""


def silent(_what: str, _done: int, _total: int) -> None:
    """The Progress that shows nothing."""


@contextmanager
def terminal_progress(console: Console | None = None) -> Iterator[Progress]:
    """A Progress on the console (default: stderr): a bar on a terminal, which is gone when the
    step is done; elsewhere one line per step."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Bar(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total or None)
            bar.update(tasks[what], completed=done)

        yield show


def _lines(console: Console) -> Progress:
    said: set[str] = set()

    def show(what: str, _done: int, total: int) -> None:
        if what not in said:
            said.add(what)
            size = f" ({total / 1e6:.0f} MB)" if total else ""
            console.print(f"{what}{size} ...", highlight=False)

    return show
