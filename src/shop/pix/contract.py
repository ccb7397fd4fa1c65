"""What clients send and get about payments. Field names are those of the Java services."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from shop.http.amount import Amount

KEY = r"\A[^\x00-\x1f\x7f-\x9f]{1,77}\Z"  # 77 characters: the longest key of Pix, an e-mail

Key = Annotated[str, msgspec.Meta(pattern=KEY, max_length=77)]


class NewPayment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A payment as a client asks for it. With the header Idempotency-Key it can be sent again
    safely. The last three are the shop's to give; Java's clients send them as null."""

    source_key: Key = msgspec.field(name="chaveOrigem")
    target_key: Key = msgspec.field(name="chaveDestino")
    amount: Amount = msgspec.field(name="valor")
    identifier: Any = None
    transferred_at: Any = msgspec.field(name="dataTransferencia", default=None)
    status: Any = None


class PixKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key of somebody who can pay and be paid: an e-mail, a phone number, any name."""

    key: Key = msgspec.field(name="chave")


class KeyPage(msgspec.Struct, frozen=True):
    """`next` is where the list goes on; null at its end."""

    keys: Sequence[PixKey]
    next: str | None = None
