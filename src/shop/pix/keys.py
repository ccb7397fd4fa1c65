"""Registering keys."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from shop.db.database import Database
from shop.http.desk import Desk
from shop.pix.model import KeyRow

_keys: Any = KeyRow.__table__


class Registration(msgspec.Struct, frozen=True, gc=False):
    """A key to be there from now on. None is a repeat: each has the same effect."""

    key: str

    @property
    def names(self) -> tuple[()]:
        return ()


class KeyDesk(Desk[Registration, bool]):
    """Answers whether a key is new."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, register)


def register(connection: Connection, registrations: Sequence[Registration]) -> Sequence[bool]:
    """Executed by the group commit, in its transaction."""
    asked = {one.key for one in registrations}
    missing = asked - set(connection.scalars(select(_keys.c.key).where(_keys.c.key.in_(asked))))
    if missing:
        now = time.time_ns() // 1_000_000
        rows = [{"key": key, "created_at": now} for key in sorted(missing)]  # no deadlocks
        connection.execute(_keys.insert(), rows)
    answers = []
    for one in registrations:
        answers.append(one.key in missing)
        missing.discard(one.key)  # a second one in the same group finds it there
    return answers
