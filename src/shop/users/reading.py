"""Reading users."""

from datetime import datetime
from typing import Any

import msgspec

from shop.db.database import Database
from shop.db.loop_reader import LoopReader
from shop.http.moment import moment

_SELECT = "SELECT uuid, email, created_at FROM users WHERE "


class UserView(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """A user as the API shows it."""

    uuid: str
    email: str
    created_at: datetime


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Of a user in the list, newest first: where the next page goes on."""

    created_at: int
    uuid: str

    def __post_init__(self) -> None:
        if "\0" in self.uuid or not 0 <= self.created_at < 2**63:
            raise ValueError("no such position")


class UserReader:
    """Belongs to one event loop. Every method raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._reader = LoopReader(database)
        self.close = self._reader.close

    async def get(self, uuid: str) -> UserView | None:
        if "\0" in uuid:  # PostgreSQL takes none
            return None
        rows = await self._reader.by_key(_SELECT + "uuid = :uuid", {"uuid": uuid})
        return _view(rows[0]) if rows else None

    async def newest(
        self, limit: int, *, email: str | None = None, after: Position | None = None
    ) -> tuple[list[UserView], Position | None]:
        """A page of the list, newest first, and where the next one begins if there is one."""
        wanted = ["1 = 1"]
        values: dict[str, Any] = {"most": limit + 1}
        if email is not None:
            wanted.append("email = :email")
            values["email"] = email
        if after is not None:
            wanted.append("(created_at, uuid) < (:created_at, :uuid)")
            values |= {"created_at": after.created_at, "uuid": after.uuid}
        query = f"{_SELECT}{' AND '.join(wanted)} ORDER BY created_at DESC, uuid DESC LIMIT :most"
        rows = await self._reader.list(query, values)
        page = rows[:limit]
        more = Position(page[-1][2], page[-1][0]) if len(rows) > limit else None
        return [_view(row) for row in page], more


def _view(row: Any) -> UserView:
    uuid, email, created_at = row
    return UserView(uuid, email, moment(created_at))
