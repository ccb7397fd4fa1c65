"""Plain JSON, without an envelope: the form of Spring's JsonSerializer."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from shop.kafka.errors import WireError
from shop.kafka.wire import Headers

E = TypeVar("E")

TYPE_ID = "__TypeId__"  # the header without which a Spring consumer fails on a record for ever


class PlainCodec(Generic[E]):
    """The event itself as a JSON object; the header `__TypeId__` names its Java class.

    `read(type, value)` makes what JSON does not know, of the JSON value that stands for it; its
    ValueError refuses the record. It is written as its text. Numbers become Decimal where the event
    says so, every digit kept.
    """

    carries_correlation_id = False

    def __init__(
        self, event_type: type[E], type_id: str, read: Callable[[type, Any], Any] | None = None
    ) -> None:
        self.event_type: Any = event_type
        self.fixed_headers: Headers = [(TYPE_ID, type_id.encode("ascii"))]
        self._decoder = msgspec.json.Decoder(event_type, dec_hook=read)
        self._encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=str)

    def encode(self, event: E, correlation_id: str) -> bytes:
        if type(event) is not self.event_type:
            name = self.event_type.__name__
            raise WireError(f"a {type(event).__name__} cannot be sent here; it takes {name}")
        try:
            return self._encoder.encode(event)
        except (UnicodeEncodeError, TypeError, ValueError) as error:
            raise WireError(
                f"the {type(event).__name__} cannot be written as JSON: {error}"
            ) from None

    def decode(self, value: bytes | None) -> tuple[E, str | None]:
        name = self.event_type.__name__
        if value is None:
            raise WireError(f"the value is null; a {name} was expected")
        try:
            return self._decoder.decode(value), None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"not a {name}: {error}") from None
