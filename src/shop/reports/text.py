"""A report as plain text."""

from collections.abc import Sequence

from shop.printable import printable
from shop.reports.content import NO_ORDERS, Content, day_and_time, written


def as_text(content: Content) -> str:
    head = [
        "Reading report",
        "==============",
        "",
        f"Created for {content.uuid}",
        f"Customer    {content.email}",
        f"Written     {day_and_time(content.written_at)} UTC",
        f"Orders      {content.shown}",
    ]
    lines = [*head, "", *_orders(content), "", *_totals(content), ""]
    return "\n".join(line.rstrip() for line in lines)


def _orders(content: Content) -> Sequence[str]:
    if not content.lines:
        return [NO_ORDERS]
    amounts = _aligned([written(line.amount) for line in content.lines])
    ids = [printable(line.order_id) for line in content.lines]
    width = max(len("Order"), *map(len, ids))
    rows = [
        f"{day_and_time(line.at)}  {id_:<{width}}  {amount}  {line.decision}"
        for line, id_, amount in zip(content.lines, ids, amounts, strict=True)
    ]
    return [
        f"{'Time (UTC)':<19}  {'Order':<{width}}  {'Amount':>{len(amounts[0])}}  Decision",
        *rows,
    ]


def _totals(content: Content) -> Sequence[str]:
    amounts = _aligned([written(total.amount) for _, total in content.summary])
    width = max(len("Count"), len(str(content.total.count)))
    rows = [
        f"{name:<9}  {total.count:>{width}}  {amount}"
        for (name, total), amount in zip(content.summary, amounts, strict=True)
    ]
    return [f"{'Decision':<9}  {'Count':>{width}}  {'Amount':>{len(amounts[0])}}", *rows]


def _aligned(numbers: Sequence[str]) -> Sequence[str]:
    """All of one width, point under point."""
    parts = [number.partition(".") for number in numbers]
    before = max(len(whole) for whole, _, _ in parts)
    after = max(len(point + rest) for _, point, rest in parts)
    width = max(before + after, len("Amount"))
    return [f"{whole:>{width - after}}{point + rest:<{after}}" for whole, point, rest in parts]
