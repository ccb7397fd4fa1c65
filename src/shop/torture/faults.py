"""What is done to whom, and when: drawn from a seed, so that it can be done again."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

# Between faults, where nobody says how many: one upon the other, or after work has begun again.
GAPS_S = ((0.2, 2.0), (4.0, 12.0))
FROZEN_S = (1.0, 8.0)  # also beyond a group session of 6 s, so that a zombie wakes up
FROZEN_SHARE = 0.25


@dataclass(frozen=True)
class Fault:
    """At `at` seconds the victim is killed (SIGKILL), or stopped for `frozen` seconds (SIGSTOP)."""

    at: float
    victim: str
    frozen: float | None = None

    def __str__(self) -> str:
        return f"{self.victim} {'killed' if self.frozen is None else 'frozen'} at {self.at:.1f} s"


def plan(
    seed: int, seconds: float, victims: Sequence[str], count: int | None = None
) -> list[Fault]:
    """`count` faults within `seconds`, or as many as fit; the same for the same arguments."""
    draw = random.Random(seed)
    return [
        Fault(
            moment,
            draw.choice(victims),
            draw.uniform(*FROZEN_S) if draw.random() < FROZEN_SHARE else None,
        )
        for moment in _moments(draw, seconds, count)
    ]


def _moments(draw: random.Random, seconds: float, count: int | None) -> list[float]:
    if count is not None:
        return sorted(draw.uniform(0, seconds) for _ in range(count))
    found: list[float] = []
    moment = 0.0
    while (moment := moment + draw.uniform(*draw.choice(GAPS_S))) < seconds:
        found.append(moment)
    return found
