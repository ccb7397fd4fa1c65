"""What strangers sent, as a log line or a terminal may show it: always one line, and customers'
addresses shortened where they are not needed whole."""

import re

SHOWN = 500  # characters of a value
_WINDOW = 2000  # bytes that are looked at for them

_SEPARATORS = r'\s"<>,;:()\[\]'  # what no address has before its @, unless quoted
_WORD = re.compile(f"[^{_SEPARATORS}]*")


def printable(text: str | bytes) -> str:
    """The text with what would not show, would begin a new line or would steer a terminal,
    escaped."""
    if isinstance(text, bytes):
        text = _text(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def whole(data: bytes | None) -> str:
    """All of it, on one line."""
    return "(null)" if data is None else printable(_text(data))


def shortened(data: bytes | None) -> str:
    """Addresses like a…@example.com, and the beginning of what is long, with its length told."""
    if data is None:
        return "(null)"
    text = _text(data[:_WINDOW])
    if len(data) > _WINDOW:
        text = text[: len(text) - _last_word(text)]  # maybe an address, cut before its @
    text = masked(text)
    if len(text) > SHOWN or len(data) > _WINDOW:
        text = f"{text[:SHOWN]}… ({len(data):,} bytes)"
    return printable(text)


def masked(text: str) -> str:
    """With one character left of each address before its @, also where that is written as in a URL
    or as JSON may."""
    if "@" not in text and "%40" not in text and "\\u0040" not in text:
        return text
    *parts, last = text.replace("%40", "@").replace("\\u0040", "@").split("@")
    return "@".join([*map(_hidden, parts), last])


def _hidden(before: str) -> str:
    """What stands before an @, with one character left of the address."""
    length = _last_word(before)
    return f"{before[: len(before) - length + 1]}…" if length else before


def _last_word(text: str) -> int:
    """The length of the last word; 0 where the text ends in a separator."""
    word = _WORD.match(text[::-1])
    return word.end() if word else 0


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
