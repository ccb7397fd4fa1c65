import httpx
import pytest
from litestar import get
from litestar.testing import TestClient

from shop.http.app import create_app
from shop.http.guard import admins_only
from shop.http.service import ServiceApi


@get("/admin/thing", guards=[admins_only])
async def thing() -> str:
    return "done"


def ask(token: str | None, **headers: str) -> httpx.Response:
    with TestClient(create_app(ServiceApi([thing], {}), admin_token=token)) as client:
        return client.get("/admin/thing", headers=headers)


def test_without_a_token_set_everybody_may() -> None:
    assert ask(None).status_code == 200


def test_the_token_opens() -> None:
    assert ask("s3cret", Authorization="Bearer s3cret").status_code == 200
    assert ask("s3cret", Authorization="bearer s3cret").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer other"},
        {"Authorization": "s3cret"},
    ],
)
def test_anything_else_is_a_401_that_says_what_is_needed(headers: dict[str, str]) -> None:
    answer = ask("s3cret", **headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Authorization: Bearer" in answer.json()["detail"]


def test_two_services_cannot_provide_the_same_name() -> None:
    with pytest.raises(ValueError, match="'desk'"):
        create_app(ServiceApi([], {"desk": 1}), ServiceApi([], {"desk": 2}))
