"""Routes for those who run the shop: they ask for a token as soon as one is set."""

import hmac
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from shop.http.problems import ProblemError

TOKEN = "admin_token"  # its name in the application's state


def admins_only(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """A guard: `Authorization: Bearer` and the token that create_app was given, if it was."""
    expected: str | None = connection.app.state.get(TOKEN)
    if expected is None:
        return
    scheme, _sep, given = connection.headers.get("authorization", "").partition(" ")
    matches = hmac.compare_digest(given.strip().encode("utf-8"), expected.encode("utf-8"))
    if scheme.lower() != "bearer" or not matches:
        raise ProblemError(
            401,
            "This needs the header Authorization: Bearer, with the shop's admin token.",
            headers={"WWW-Authenticate": "Bearer"},
        )
