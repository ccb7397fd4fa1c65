"""Identifiers. Those that become database keys begin with the time, so that neighbours in time are
neighbours in the index: random keys make each insert touch a page of its own."""

import random
import time
from hashlib import blake2b

_bits = random.SystemRandom().getrandbits
_random = random.Random(_bits(256)).getrandbits  # unique, not secret


def random_id() -> str:
    """A UUID of random bits, for names that nobody looks up."""
    return _formatted(f"{_random(128):032x}", "4")


def time_ordered_id() -> str:
    """A UUID version 7 (RFC 9562): milliseconds since the epoch, then random bits."""
    return _formatted(f"{time.time_ns() // 1_000_000:012x}{_random(80):020x}", "7")


def derived_id(cause: str, *names: object) -> str:
    """A UUID (version 8) that is the same for the same arguments.

    Where `cause` ends in a UUID it begins as that one does, and so keeps its place in time."""
    name = "\n".join((cause, *map(str, names)))
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    if len(cause) >= 36 and cause[-28] == cause[-23] == "-":
        digest = cause[-36:-28] + cause[-27:-23] + digest[12:]
    return _formatted(digest, "8")


def _formatted(h: str, version: str) -> str:
    return f"{h[:8]}-{h[8:12]}-{version}{h[13:16]}-a{h[17:20]}-{h[20:]}"
