import json

import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from shop.cli import app
from tests.unit.users.conftest import Api


def shop_users_list(api: Api, *options: str) -> Result:
    environment = {"SHOP_HTTP__PORT": str(api.server.port)}
    return CliRunner().invoke(app, ["users", "list", *options], env=environment)


def test_a_user_is_shown_by_its_uuid(api: Api) -> None:
    shown = {"uuid": "u3", "email": "3@example.com", "createdAt": "1970-01-01T00:00:01.001000Z"}
    assert api.get("/users/u3").json() == shown


@pytest.mark.parametrize("uuid", ["nobody", "%00"])
def test_a_user_who_is_not_there_is_a_problem(api: Api, uuid: str) -> None:
    answer = api.get(f"/users/{uuid}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_list_is_newest_first_page_by_page(api: Api) -> None:
    pages: list[list[str]] = []
    url: str | None = "/users?limit=200"
    while url is not None:
        page = api.get(url).json()
        pages.append([user["uuid"] for user in page["users"]])
        url = page["next"]
    assert [len(page) for page in pages] == [200, 200, 50]
    newest = sorted(range(450), key=lambda n: (n // 2, f"u{n}"), reverse=True)
    assert [uuid for page in pages for uuid in page] == [f"u{n}" for n in newest]


def test_an_email_finds_its_user_and_no_other(api: Api) -> None:
    found = api.get("/users", email="7@example.com").json()
    assert ([user["uuid"] for user in found["users"]], found["next"]) == (["u7"], None)
    assert api.get("/users", email="7@example.co").json()["users"] == []


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "cursor=x", "cursor=WzEsMV0", "email=%00"]
)
def test_what_cannot_be_listed_is_named(api: Api, query: str) -> None:
    answer = api.get(f"/users?{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["parameter"] == query.partition("=")[0]


@pytest.mark.parametrize("wanted", ["1 = 1", "(created_at, uuid) < (1100, 'u')"])
def test_a_page_is_read_from_an_index_and_not_sorted(api: Api, wanted: str) -> None:
    page = f"SELECT * FROM users WHERE {wanted} ORDER BY created_at DESC, uuid DESC LIMIT 51"
    with api.database.read() as connection:
        (step,) = connection.execute(text(f"EXPLAIN QUERY PLAN {page}")).all()
    assert "USING INDEX users_by_age" in step.detail


def test_the_command_follows_the_pages_up_to_its_limit(api: Api) -> None:
    result = shop_users_list(api, "--limit", "401", "--json")
    uuids = [user["uuid"] for user in json.loads(result.stdout)]
    assert (len(uuids), len(set(uuids))) == (401, 401)
    assert uuids[0] == "u449"
    assert "there are more" in result.stderr


def test_the_command_says_nothing_of_more_where_there_is_none(api: Api) -> None:
    for options in (["--limit", "450"], ["--email", "5@example.com"]):
        assert shop_users_list(api, *options).stderr == ""


def test_the_command_prints_a_table_of_fifty(api: Api) -> None:
    heading, *lines = shop_users_list(api).stdout.splitlines()
    assert heading.split() == ["uuid", "email", "created"]
    assert lines[0].split() == ["u449", "449@example.com", "1970-01-01T00:00:01.224000Z"]
    assert len(lines) == 50
