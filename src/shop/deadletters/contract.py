"""What clients send and get about dead letters."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from shop.deadletters.choosing import MOST_IDS, Choice
from shop.deadletters.reading import LetterView
from shop.deadletters.redrives import Redrive

NAME = r"\A[^\x00-\x1f\x7f-\x9f]{1,100}\Z"
TEXT = r"\A[^\x00]*\Z"  # PostgreSQL takes no NUL
LONGEST = 300  # characters of a topic, a group or an exception's name
LONGEST_AGE = 10**9  # seconds

_Text = Annotated[str, msgspec.Meta(pattern=TEXT, max_length=LONGEST)]
_Age = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_AGE)]


class NewRedrive(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Which letters are to be redriven: those of which all that is said holds, and something must
    be said. Ages are seconds, 0 or more, since it last failed; `exception` is a part of its name.

    `rate`: letters per second. `to`: the topic for letters that tell none of the shop's. `toGroup`:
    for letters of a group that does not read the topic, one that does, or `all`. `again`: also
    letters that are redriven or discarded. `by`: who wants it."""

    by: Annotated[str, msgspec.Meta(pattern=NAME)]
    ids: Annotated[list[_Text], msgspec.Meta(max_length=MOST_IDS)] = []
    topic: _Text | None = None
    group: _Text | None = None
    exception: _Text | None = None
    older_than: _Age | None = None
    newer_than: _Age | None = None
    rate: Annotated[float, msgspec.Meta(ge=0.001, le=1_000_000)] | None = None
    to: _Text | None = None
    to_group: _Text | None = None
    again: bool = False
    dry_run: bool = False

    @property
    def redrive(self) -> Redrive:
        choice = Choice(
            ids=tuple(self.ids),
            topic=self.topic,
            group=self.group,
            exception=self.exception,
            older_than=self.older_than,
            newer_than=self.newer_than,
        )
        return Redrive(
            by=self.by,
            choice=choice,
            rate=self.rate,
            to=self.to,
            to_group=self.to_group,
            again=self.again,
        )


class LetterPage(msgspec.Struct, frozen=True):
    """`next` is where the list goes on; null at its end."""

    letters: Sequence[LetterView]
    next: str | None = None


class Discarded(msgspec.Struct, frozen=True, rename="camel"):
    """How many letters are discarded, or would be by what was a dry run. `behind`: how many others
    are held back behind them, and stay so until they are redriven or discarded too."""

    letters: int
    behind: int
    dry_run: bool
