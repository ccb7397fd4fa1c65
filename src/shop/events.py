"""What travels on the topics. Field names on the wire are those of the Java services."""

import re
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Self

import msgspec


class Order(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A customer's order. `amount` keeps every digit that came. Without an `order_id` the order's
    identity is the correlation id of its record."""

    order_id: str | None = None
    amount: Decimal
    email: str

    def __post_init__(self) -> None:
        if not self.amount.is_finite():
            raise ValueError("amount is not a finite number")

    def identified(self, correlation_id: str) -> "Order":
        """This order with an id, its own or else the correlation id of its record."""
        return self if self.order_id else msgspec.structs.replace(self, order_id=correlation_id)


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A customer, by the id that `users` gave."""

    uuid: str


class LocalDateTime(str):
    """A date and time without a zone, in ISO form, with all the nanoseconds that came.

    On the wire that text, or the array of 5 to 7 numbers that Jackson makes of a LocalDateTime:
    year, month, day, hour, minute, second, nanosecond."""

    __slots__ = ()

    @classmethod
    def of(cls, time: datetime) -> Self:
        return cls(time.replace(tzinfo=None).isoformat())

    @classmethod
    def from_wire(cls, value: Any) -> Self:
        """Raises ValueError for what is neither form, or no date."""
        if isinstance(value, list) and 5 <= len(value) <= 7 and all(type(n) is int for n in value):
            *numbers, nanosecond = (*value, 0, 0)[:7]
            if not 0 <= nanosecond < 1_000_000_000:
                raise ValueError("a nanosecond is 0 to 999999999")
            try:
                text = datetime(*numbers).isoformat()
            except OverflowError:
                raise ValueError("a year is 1 to 9999") from None
            return cls(f"{text}.{nanosecond:09d}" if nanosecond else text)
        if isinstance(value, str) and (parts := _LOCAL.match(value)):
            datetime.fromisoformat(parts[1])
            return cls(value)
        raise ValueError(f"{value!r:.60} is no local date and time")


_LOCAL = re.compile(r"\A(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?)(?:\.\d{1,9})?\Z", re.ASCII)


class Pix(msgspec.Struct, frozen=True, kw_only=True):
    """A payment between two keys. Only ours are sure to be complete."""

    identifier: str | None = None
    source_key: str | None = msgspec.field(name="chaveOrigem", default=None)
    target_key: str | None = msgspec.field(name="chaveDestino", default=None)
    amount: Decimal | None = msgspec.field(name="valor", default=None)
    transferred_at: LocalDateTime | None = msgspec.field(name="dataTransferencia", default=None)
    status: str | None = None

    def __post_init__(self) -> None:
        if self.amount is not None and not self.amount.is_finite():
            raise ValueError("valor is not a finite number")


class PixSum(msgspec.Struct, frozen=True, kw_only=True):
    """What a key has sent so far."""

    source_key: str = msgspec.field(name="chaveOrigem")
    total: Decimal = msgspec.field(name="soma")
    payments: int = msgspec.field(name="pagamentos")


class OrdersPerMinute(msgspec.Struct, frozen=True, kw_only=True):
    """The orders decided so within a minute, as far as it has come: a later one of the same
    decision and minute replaces it."""

    decision: Literal["approved", "rejected"]
    begin: datetime = msgspec.field(name="from")  # in UTC
    end: datetime = msgspec.field(name="to")  # the first moment after it
    orders: int
    amount: Decimal


def from_wire(type_: Any, value: Any) -> Any:
    """How a codec makes what JSON has no form for."""
    return type_.from_wire(value)
