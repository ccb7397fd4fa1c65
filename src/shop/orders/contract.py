"""What clients send and get about orders."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from shop.http.amount import Amount
from shop.orders.reading import OrderView

# An address that any mail server takes: RFC 5322's dot-atom @ a host name, ASCII only, since not
# every server speaks SMTPUTF8. What passes here must not be refused when the mail is sent.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
EMAIL = rf"\A(?![^@]{{65}}){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*\Z"
ID = r"\A[A-Za-z0-9_.-]{1,64}\Z"
TEXT = r"\A[^\x00]*\Z"  # PostgreSQL takes no NUL

Email = Annotated[str, msgspec.Meta(pattern=EMAIL, max_length=254)]
OrderId = Annotated[str, msgspec.Meta(pattern=ID)]


class NewOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order as a client places it. With an id of its own, or the header Idempotency-Key, it
    can be sent again safely."""

    email: Email
    amount: Amount
    id: OrderId | None = None


class OrderPage(msgspec.Struct, frozen=True):
    """`next` is where the list goes on; null at its end."""

    orders: Sequence[OrderView]
    next: str | None = None
