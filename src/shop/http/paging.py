"""Lists in pages: a page names where the next one begins, and clients send that back as it is."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, TypeVar

import msgspec

from shop.http.problems import FieldError, invalid

P = TypeVar("P")


def cursor_of(position: Any) -> str:
    """A position in a list as clients get it, opaque."""
    return urlsafe_b64encode(msgspec.json.encode(position)).decode("ascii").rstrip("=")


def position_of(cursor: str | None, type_: type[P]) -> P | None:
    """The position that a parameter `cursor` stands for; raises ProblemError when it is none of
    ours. What it must be like beyond its type, `type_` says by raising ValueError."""
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        return msgspec.json.decode(urlsafe_b64decode(padded), type=type_)
    except (ValueError, UnicodeError, msgspec.DecodeError):
        raise invalid(
            FieldError(parameter="cursor", detail="is not from `next` of a page")
        ) from None
