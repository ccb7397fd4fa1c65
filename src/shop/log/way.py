"""What a correlation id tells of a record's way: where it began, and who sent it."""

import re

from shop.log.content import LONGEST

_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_TOPIC = r"[A-Za-z0-9._-]{1,249}+"
# The id of a record that had none says where it lies: it is the first send.
_PLACE = re.compile(r"\AECOMMERCE[A-Za-z0-9._-]*\(\d+-\d+\)")
_SEND = re.compile(rf"-_{_TOPIC}\({_UUID}\)")
_SENDER = re.compile(rf"(?:\A|-)([^-()]+)\({_UUID}\)-_{_TOPIC}\({_UUID}\)\Z")


def origin_of(correlation_id: str) -> str:
    """The part up to the first send, which all that comes of that send shares; the whole of an id
    that tells of none."""
    first = _PLACE.match(correlation_id) or _SEND.search(correlation_id)
    return correlation_id[: first.end() if first else None][:LONGEST]


def sends_of(correlation_id: str) -> list[str]:
    """The correlation ids of the records on the way to this one, and its own, the last first."""
    place = _PLACE.match(correlation_id)
    ends = [place.end()] if place else []
    ends += [send.end() for send in _SEND.finditer(correlation_id)]
    return [correlation_id[:end] for end in reversed(ends)]


def sender_of(correlation_id: str) -> str | None:
    """The service that sent the record; None where the id does not tell."""
    found = _SENDER.search(correlation_id)
    return found[1] if found else None
