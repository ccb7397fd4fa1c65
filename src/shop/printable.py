"""What strangers sent, as a log line or a terminal may show it."""


def printable(text: str | bytes) -> str:
    """The text with what would not show, would begin a new line or would steer a terminal,
    escaped."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
