"""Money as clients of the HTTP API send it."""

import re
from decimal import Decimal
from typing import Any, Self

LIMIT = Decimal(10) ** 12

_CENT = Decimal("0.01")
# JSON's own notation of numbers, of bounded length.
_NUMBER = re.compile(r"\A-?(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?\Z")
# As many digits as Java's BigDecimal and Double write, and one of them is not 0.
POSITIVE = r"\A(?=[0-9.]*[1-9])[0-9]{1,100}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,3})?\Z"


class Amount(Decimal):
    """Greater than 0, less than 10^12, at most two decimal places.

    A JSON number or the same as a string. The value counts, not its notation: 10, 10.00, "10" and
    1e1 are one amount, kept in its shortest form without an exponent (10)."""

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Raises ValueError."""
        if type(value) is int or (isinstance(value, str) and _NUMBER.match(value)):
            number = Decimal(value)
        else:
            raise ValueError("must be a decimal number, like 10 or 10.50")
        if not number > 0:
            raise ValueError("must be greater than 0")
        if number >= LIMIT:
            raise ValueError(f"must be less than {LIMIT}")
        if number % _CENT:
            raise ValueError("must have at most two decimal places")
        return cls(f"{number.normalize():f}")

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        return {
            "description": "Greater than 0, less than 10^12, at most two decimal places; "
            "a number or the same as a string. Kept and sent exactly, as a decimal.",
            "oneOf": [
                {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "exclusiveMaximum": int(LIMIT),
                    "multipleOf": 0.01,
                },
                {
                    "type": "string",
                    "pattern": r"^(0\.[1-9][0-9]?|[1-9][0-9]{0,11}(\.[0-9]{1,2})?)$",
                },
            ],
        }


def any_positive(text: str) -> Decimal:
    """A decimal of any number of digits, every one kept, without an exponent.

    Raises ValueError."""
    if not re.match(POSITIVE, text):
        raise ValueError("must be a decimal number greater than 0")
    return Decimal(f"{Decimal(text):f}")
