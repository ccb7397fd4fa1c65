"""What a report says, whatever it is written as."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact

from shop.printable import printable
from shop.reports.model import Decision

MOST_SHOWN = 1000  # orders; the newest ones
NO_ORDERS = "No orders yet."
TOO_LONG = "too many digits to add up"

_UNKNOWN = "unknown customer"
_exact = Context(prec=1000, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact])
_LONGEST = 100  # digits that an exponent may stand for


@dataclass(frozen=True)
class Line:
    """An order of the customer."""

    order_id: str
    at: datetime
    amount: Decimal
    decision: Decision


@dataclass
class Total:
    """`amount` is exact. None: one of them has an exponent that makes the sum too long."""

    count: int = 0
    amount: Decimal | None = field(default_factory=Decimal)

    def add(self, amount: Decimal) -> None:
        self.count += 1
        if self.count == 1:
            self.amount = amount
        elif self.amount is not None:
            try:
                self.amount = _exact.add(self.amount, amount)
            except Inexact:
                self.amount = None


@dataclass(frozen=True)
class Content:
    """`lines` are the newest orders, the oldest first; the totals are of all."""

    uuid: str
    email: str
    written_at: datetime
    lines: tuple[Line, ...]
    totals: Mapping[Decision, Total]
    total: Total

    @property
    def summary(self) -> Sequence[tuple[str, Total]]:
        """The totals by name, that of all at the end."""
        return [*((name.value, total) for name, total in self.totals.items()), ("all", self.total)]

    @property
    def shown(self) -> str:
        """How many orders there are, and are shown."""
        if len(self.lines) == self.total.count:
            return f"{self.total.count}"
        return f"{self.total.count}, the newest {len(self.lines)} are shown"


def content_of(
    uuid: str, email: str | None, written_at: datetime, orders: Iterable[Line]
) -> Content:
    """`orders`: all of the customer, the oldest first; they are read once and not kept."""
    newest: deque[Line] = deque(maxlen=MOST_SHOWN)
    totals = {decision: Total() for decision in Decision}
    total = Total()
    for line in orders:
        newest.append(line)
        totals[line.decision].add(line.amount)
        total.add(line.amount)
    return Content(
        printable(uuid), printable(email or _UNKNOWN), written_at, tuple(newest), totals, total
    )


def written(amount: Decimal | None) -> str:
    """Every digit, and two decimal places at least."""
    if amount is None:
        return TOO_LONG
    exponent = amount.as_tuple().exponent
    assert isinstance(exponent, int)  # orders are finite
    if abs(amount.adjusted()) > _LONGEST or exponent < -4 * _LONGEST:
        return str(amount)
    return f"{amount:.2f}" if exponent > -2 else f"{amount:f}"


def day_and_time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"
