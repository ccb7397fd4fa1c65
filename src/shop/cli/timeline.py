"""An order's timeline, drawn for the terminal: what was sent, and below it what came of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shop.printable import printable

_REPEATS = {"event": "  (the same event again)", "order": "  (the same order again)"}

_Hop = Mapping[str, Any]


def drawing(timeline: Mapping[str, Any], trace_url: str) -> list[str]:
    """The lines of a timeline as the API answers it. `trace_url`: with {trace_id} in it."""
    hops: Sequence[_Hop] = timeline["hops"]
    accepted = timeline["acceptedAt"]
    where = f"accepted {accepted}" if accepted else "not from the API"
    lines = [f"{printable(timeline['orderId'])}  {where}"]
    width = max((len(_after(hop)) for hop in hops), default=0)
    below: dict[int | None, list[int]] = {}
    for number, hop in enumerate(hops):
        below.setdefault(_cause(hop, hops), []).append(number)
    lines += [f"{_after(hops[n]):>{width}}  {art}{_what(hops[n])}" for n, art in _tree(below)]
    if timeline["cut"]:
        lines.append("there are more, which are not shown")
    if not hops:
        lines.append("no record of it has been seen yet")
    traces = dict.fromkeys(hop["traceId"] for hop in hops if hop["traceId"])
    return lines + [f"trace {trace_url.replace('{trace_id}', trace)}" for trace in traces]


def _tree(
    below: Mapping[int | None, Sequence[int]], cause: int | None = None, indent: str = ""
) -> Iterator[tuple[int, str]]:
    """The numbers of the hops with the branches to their left."""
    siblings = below.get(cause, ())
    for number in siblings:
        last = number == siblings[-1]
        yield number, indent + ("└─ " if last else "├─ ")
        yield from _tree(below, number, indent + ("   " if last else "│  "))


def _cause(hop: _Hop, hops: Sequence[_Hop]) -> int | None:
    """The number of the hop that this one came of: its correlation id is the beginning of this
    one's."""
    causes = {
        number: len(other["correlationId"])
        for number, other in reversed(list(enumerate(hops)))
        if hop["correlationId"].startswith(other["correlationId"] + "-")
    }
    return max(causes, key=lambda number: causes[number], default=None)


def _after(hop: _Hop) -> str:
    return f"+{hop['afterMs']} ms"


def _what(hop: _Hop) -> str:
    place = f"{hop['topic']}[{hop['partition']}]@{hop['offset']}"
    return f"{printable(hop['service'] or '?')} -> {place}{_REPEATS.get(hop['repeat'], '')}"
