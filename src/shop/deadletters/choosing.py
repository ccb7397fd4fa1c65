"""Which letters are meant: for lists, redrives and discards alike."""

from typing import Any

import msgspec

from shop.deadletters.model import State

MOST_IDS = 1000


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """All that is said must hold. `exception`: a part of its class's full name, in any case of
    letters; ages are seconds since the letter last failed."""

    ids: tuple[str, ...] = ()
    topic: str | None = None
    group: str | None = None
    exception: str | None = None
    older_than: float | None = None
    newer_than: float | None = None

    @property
    def says_something(self) -> bool:
        return self != Choice()

    def where(self, now: int, *states: State) -> tuple[str, dict[str, Any]]:
        """The condition in SQL, with its parameters. `now` in milliseconds; no states: all."""
        wanted: list[str] = ["1 = 1"]
        values: dict[str, Any] = {}

        def want(condition: str, name: str, value: Any) -> None:
            if value is not None:
                wanted.append(condition)
                values[name] = value

        def want_one_of(column: str, choices: tuple[str, ...]) -> None:
            names = {f"{column}{number}": choice for number, choice in enumerate(choices)}
            if names:
                wanted.append(f"letter.{column} IN ({', '.join(f':{name}' for name in names)})")
                values.update(names)

        want_one_of("id", self.ids)
        want_one_of("state", tuple(state.value for state in states))
        want("letter.topic = :topic", "topic", self.topic)
        want("letter.consumer_group = :group", "group", self.group)
        part = None if self.exception is None else f"%{_escaped(self.exception.lower())}%"
        want("lower(letter.exception) LIKE :part ESCAPE '!'", "part", part)
        want("letter.last_at <= :youngest", "youngest", _ago(now, self.older_than))
        want("letter.last_at > :oldest", "oldest", _ago(now, self.newer_than))
        return " AND ".join(wanted), values


def _ago(now: int, seconds: float | None) -> int | None:
    return None if seconds is None else now - round(seconds * 1000)


def _escaped(text: str) -> str:
    return text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
