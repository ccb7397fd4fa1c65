"""The correlation id: readable, it grows with each hop, so that it tells a record's whole way.

`Title(uuid)` begins one, `-Title(uuid)` continues it in a service, `-_TOPIC(uuid)` marks a send.
"""

import re

from shop.kafka.ids import random_id

MAX_LENGTH = 2000  # characters; past it the middle is cut
CUT = "-…-"

# A stranger's: no @, since what looks like an address is shortened in logs, and must not be in ids.
PATTERN = "[A-Za-z0-9._:()/+=-]{1,200}"
ALLOWED = "1 to 200 letters, digits or ._:()/+=-"
_ACCEPTABLE = re.compile(rf"\A{PATTERN}\Z")


def begin(title: str, name: str | None = None) -> str:
    """A new id. `name`: the uuid to show, where it is to be found again by one."""
    return f"{title}({name or random_id()})"


def through(correlation_id: str, title: str, name: str | None = None) -> str:
    """The id as the service `title` continues it; `name` as in `begin`."""
    return bounded(f"{correlation_id}-{begin(title, name)}")


def sent_to(correlation_id: str, topic: str) -> str:
    """The id as one record on `topic` carries it."""
    return bounded(f"{correlation_id}-_{topic}({random_id()})")


def bounded(correlation_id: str) -> str:
    """At most MAX_LENGTH characters: where it began and its latest hops, the cut marked."""
    if len(correlation_id) <= MAX_LENGTH:
        return correlation_id
    half = (MAX_LENGTH - len(CUT)) // 2
    return correlation_id[:half] + CUT + correlation_id[-half:]


def acceptable(correlation_id: str) -> bool:
    """Whether a stranger's id may begin ours: short, one line, nothing that breaks a log."""
    return _ACCEPTABLE.match(correlation_id) is not None
