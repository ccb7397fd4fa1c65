"""What may happen to a group: what comes in, how each record fares, and what befalls members."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from hypothesis import strategies as st

from shop.db.work import Work
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.errors import PermanentFailure, Unavailable
from shop.kafka.retry import SHORTEST_WAIT_S, Backoff
from shop.kafka.store import Partition
from tests.unit.model_group import HELD, PLAIN, Died, Effect

T = TypeVar("T")

LANES: dict[bytes | None, int] = {b"a": 0, b"b": 0, b"c": 1, None: 1}  # the partition of each key
PARTITIONS = [Partition(topic.name, number) for topic in (PLAIN, HELD) for number in (0, 1)]
BACKOFF = Backoff(first=1.0, factor=2.0, longest=20.0)
NACK_S = 15.0
A_LONG_TIME_S = 100.0

ONCE = {  # how a listener may fail, and the shortest wait until the record comes again
    "fail": BACKOFF.first * 0.8,
    "nack": NACK_S,
    "no word": BACKOFF.first * BACKOFF.factor**2 * 0.8,
    "away": SHORTEST_WAIT_S,
    "clash": 0.0,  # seen only when the batch is written: each record is tried alone, at once
    "die": 0.0,
}
PICK = st.integers(0, 999)  # of how many there are just then
UNTIL_MENDED = ["fail", "clash", "refuse"]


class Turn(NamedTuple):
    """Whose, after how many seconds, and what happens in it."""

    pick: int
    after: float
    fault: str
    rebalance_after: int
    stumbles: bool


class Send(NamedTuple):
    """Some records of one key, and what becomes of each: call by call, and then until mended."""

    topic: str
    key: bytes | None
    fates: list[Any]
    pick: int


SENDS = st.builds(
    Send,
    topic=st.sampled_from(["plain", "held"]),
    key=st.sampled_from(list(LANES)),
    fates=st.lists(
        st.sampled_from(["poison", "gap", "again"])
        | st.tuples(
            st.lists(st.sampled_from(["", *ONCE]), max_size=4),
            st.sampled_from(["", "", *UNTIL_MENDED]),
        ),
        min_size=1,
        max_size=5,
    ),
    pick=PICK,
)
A_TURN = st.builds(
    Turn,
    pick=PICK,
    after=st.sampled_from([A_LONG_TIME_S, 5.0, 0.5, 0.0]),
    fault=st.sampled_from(["", "", "", "", "", "away", "answer lost", "died after commit"]),
    rebalance_after=st.integers(0, 3),
    stumbles=st.booleans(),
)
TURNS = st.lists(A_TURN, min_size=3, max_size=8)


class Refused(PermanentFailure):
    """Trying again cannot help."""


def picked(pick: int, things: Sequence[T]) -> T:
    return things[pick % len(things)]


def befall(fate: str, work: Work, ack: Acknowledgment) -> None:
    match fate:
        case "fail":
            raise RuntimeError("it failed")
        case "refuse":
            raise Refused
        case "away":
            raise Unavailable("it is away")
        case "die":
            raise Died
        case "nack":
            ack.nack(NACK_S)
        case "clash":
            work.add(Effect, id=0, name="", topic="", partition=0, offset=0)
            ack.acknowledge()
