"""Times as they are shown."""

from datetime import UTC, datetime

_LAST = 253_402_300_799_999  # milliseconds: the end of the year 9999


def moment(milliseconds: int) -> datetime:
    """A time of a database."""
    return datetime.fromtimestamp(min(max(milliseconds, 0), _LAST) / 1000, UTC)
