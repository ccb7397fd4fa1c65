"""The routes of users: reading only, since users are made by orders."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlencode

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import PathParameter, QueryParameter

from shop.http.paging import cursor_of, position_of
from shop.http.problems import ProblemError, documented
from shop.users.reading import Position, UserReader, UserView

TEXT = r"\A[^\x00]*\Z"  # PostgreSQL takes no NUL


class UserPage(msgspec.Struct, frozen=True):
    """`next` is where the list goes on; null at its end."""

    users: Sequence[UserView]
    next: str | None = None


class UserController(Controller):
    path = "/users"
    tags = ("users",)

    @get(responses=documented(503))
    async def newest(
        self,
        users: NamedDependency[UserReader],
        email: Annotated[str | None, QueryParameter(max_length=254, pattern=TEXT)] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=200)] = 50,
        cursor: Annotated[
            str | None, QueryParameter(description="From `next` of the page before.")
        ] = None,
    ) -> UserPage:
        """Newest first, page by page."""
        after = position_of(cursor, Position)
        page, more = await users.newest(limit, email=email, after=after)
        if more is None:
            return UserPage(page)
        asked = {"email": email, "limit": limit, "cursor": cursor_of(more)}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return UserPage(page, f"/users?{query}")

    @get("/{uuid:str}", responses=documented(404, 503))
    async def show(
        self, uuid: Annotated[str, PathParameter()], users: NamedDependency[UserReader]
    ) -> UserView:
        """One user."""
        user = await users.get(uuid)
        if user is None:
            raise ProblemError(404, "There is no user with this uuid.")
        return user
