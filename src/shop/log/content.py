"""Reading any record's value: whatever can be read of it, and never an error."""

from typing import Any

import msgspec

from shop.kafka.correlation import bounded
from shop.kafka.errors import WireError
from shop.kafka.wire import Headers
from shop.printable import printable

LONGEST = 600  # characters of what an index holds; PostgreSQL's entries end at 2,700 bytes

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Content(msgspec.Struct, frozen=True, gc=False):
    """`value` is as it came. The others are None where the value does not say, or not sensibly."""

    value: bytes | None
    type: str | None = None
    order_id: str | None = None


class _Envelope(msgspec.Struct, rename="camel"):
    type: msgspec.Raw = msgspec.Raw()
    payload: msgspec.Raw = msgspec.Raw()
    correlation_id: msgspec.Raw = msgspec.Raw()


class _Payload(msgspec.Struct, rename="camel"):
    order_id: str | None = None


class _Correlation(msgspec.Struct):
    id: str | None = None


_envelope = msgspec.json.Decoder(_Envelope)
_text = msgspec.json.Decoder(str)
_payload = msgspec.json.Decoder(_Payload)
_correlation = msgspec.json.Decoder(_Correlation)


class ContentCodec:
    """Takes any bytes, and null. Each part is read by itself, so that a payload nobody understands
    does not hide the correlation id."""

    event_type: Any = Content
    fixed_headers: Headers = []  # noqa: RUF012 - never written to
    carries_correlation_id = True

    def encode(self, event: Content, correlation_id: str) -> bytes:
        raise WireError("what was read of a record is not sent")

    def decode(self, value: bytes | None) -> tuple[Content, str | None]:
        envelope = None if value is None else _read(_envelope, value)
        if envelope is None:
            return Content(value), None
        correlation = _read(_correlation, envelope.correlation_id)
        payload = _read(_payload, envelope.payload)
        content = Content(
            value,
            _short(_read(_text, envelope.type)),
            _short(payload.order_id) if payload else None,
        )
        return content, storable(correlation.id) if correlation and correlation.id else None


def storable(text: str) -> str:
    """The text as every database and every log takes it: bounded, on one line, without NUL."""
    return bounded(printable(text))


def _short(text: str | None) -> str | None:
    """The text if it can be a name of something; it is looked up as it is, so it is not cut."""
    return text if text and len(text) <= LONGEST and "\0" not in text else None


def _read(decoder: msgspec.json.Decoder[Any], value: Any) -> Any:
    try:
        return decoder.decode(value)
    except _UNREADABLE:
        return None
