"""What travels on the topics. Field names on the wire are those of the Java services."""

from decimal import Decimal

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
