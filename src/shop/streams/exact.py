"""Adding amounts without losing a digit."""

from decimal import Context, Decimal, Inexact

PLACES = 1000  # before and after the point; with 1E+9999 among them a sum would have no end

_exact = Context(prec=2 * PLACES + 30, traps=[Inexact])


def addable(amount: Decimal) -> bool:
    """Whether a finite amount has at most PLACES before and after the point."""
    _, digits, exponent = amount.as_tuple()
    assert isinstance(exponent, int)
    return exponent >= -PLACES and len(digits) + exponent <= PLACES


def add(total: Decimal, amount: Decimal) -> Decimal:
    """The sum of addable amounts with one more."""
    return _exact.add(total, amount)
