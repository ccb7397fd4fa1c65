import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.http.conftest import Api


def check_problem(answer: Any, status: int) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert answer.status_code == problem["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "detail", "instance"} <= set(problem)
    assert problem["correlationId"] == answer.headers["x-correlation-id"]
    return problem


@pytest.mark.parametrize(
    "amount",
    [
        *("-1", "0", "0.0", "0.001", "1e-3", "1e999", "1e12", "1000000000000", "1e99999999999"),
        *('"NaN"', '"sNaN"', '"Infinity"', '"1_0"', '""', '" 1"', '"1,5"', '"+1"', '"0x10"'),
        *('"\u0661"', '"\\u0000"', "NaN", "Infinity", "-Infinity", "null", "true", "[1]", "{}"),
        *("1" * 5000, '"' + "1" * 5000 + '"', "0." + "1" * 5000, "1.0000000000000000000000000001"),
    ],
)
def test_an_amount_that_is_none_is_refused_by_name(api: Api, amount: str) -> None:
    body = f'{{"email":"a@example.com","amount":{amount}}}'.encode()
    problem = check_problem(api.post_bytes(body), 400)
    assert problem["errors"][0]["pointer"] == "#/amount"


@pytest.mark.parametrize(
    "email",
    [
        *("", "ana", "@", "a@", "@b", "a@b@c", "a b@c", "a@b c", "a@b\n", "a@b\r\nBcc: c@d"),
        *("a,c@b.co", "<a@b.co>", "a..b@c", '"a"@b', "a@[127.0.0.1]", "a@-b", "x" * 65 + "@b.co"),
        *("a\0@b", "a@b\u2028", "é@b.co", "\x85a@b", "a@" + "b" * 253, 5, None, ["a@b"]),
    ],
)
def test_an_email_that_cannot_be_one_is_refused_by_name(api: Api, email: Any) -> None:
    problem = check_problem(api.post({"email": email, "amount": 1}), 400)
    assert problem["errors"][0]["pointer"] == "#/email"


@pytest.mark.parametrize("id_", ["", "a b", "a/b", "é", "x" * 65, "a\n", 5])
def test_an_id_of_other_characters_is_refused_by_name(api: Api, id_: Any) -> None:
    problem = check_problem(api.post({"email": "a@b.c", "amount": 1, "id": id_}), 400)
    assert problem["errors"][0]["pointer"] == "#/id"


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "é".encode()])
def test_an_idempotency_key_is_1_to_255_printable_characters(api: Api, key: Any) -> None:
    headers = {"Idempotency-Key": key}
    answer = api.client.post("/orders", json={"email": "a@b.c", "amount": 1}, headers=headers)
    assert check_problem(answer, 400)["errors"][0]["parameter"] == "Idempotency-Key"


def test_an_unknown_field_and_a_missing_one_are_named(api: Api) -> None:
    unknown = check_problem(api.post({"email": "a@b.c", "amount": 1, "a/b": 2}), 400)
    assert unknown["errors"][0]["pointer"] == "#/a~1b"
    missing = check_problem(api.post({"email": "a@b.c"}), 400)
    assert missing["errors"] == [
        {"pointer": "#/amount", "detail": "object missing required field `amount`"}
    ]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b'"x"', b"{", b"{}x", b"\xff\xfe", b'{"email":"\xff"}'),
        *(b'{"email":"\xed\xa0\x80","amount":1}', b'{"email":"\\ud800@b","amount":1}'),
        *(b"[" * 60_000, b'{"email":' * 7_000, b'{"x":' + b"[" * 50_000, b"\0"),
    ],
)
def test_a_body_that_is_no_order_is_a_400(api: Api, body: bytes) -> None:
    check_problem(api.post_bytes(body), 400)


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "x", ""])
def test_only_json_is_taken(api: Api, media_type: str) -> None:
    body = b'{"email":"a@example.com","amount":1}'
    check_problem(api.post_bytes(body, media_type), 415)


def test_json_may_name_its_charset(api: Api) -> None:
    body = b'{"email":"a@example.com","amount":1}'
    assert api.post_bytes(body, "application/json; charset=utf-8").status_code == 202


def test_a_body_over_64_kib_is_too_large_also_in_chunks(api: Api) -> None:
    body = json.dumps({"email": "a@b.c", "amount": 1}).encode().ljust(65_537)

    def chunks() -> Iterator[bytes]:
        yield from (body[start : start + 8192] for start in range(0, len(body), 8192))

    check_problem(api.post_bytes(body), 413)
    headers = {"content-type": "application/json"}
    check_problem(api.client.post("/orders", content=chunks(), headers=headers), 413)
    assert api.post_bytes(body[:65_536]).status_code == 202


def test_an_unknown_path_is_a_problem(api: Api) -> None:
    problem = check_problem(api.get("/nothing/here"), 404)
    assert problem["instance"] == "/nothing/here"
    check_problem(api.get("/schema/nothing"), 404)


def test_a_method_that_is_not_there_is_a_problem_that_tells_those_that_are(api: Api) -> None:
    answer = api.client.delete("/orders")
    check_problem(answer, 405)
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        *(("limit=0", "limit"), ("limit=201", "limit"), ("limit=x", "limit")),
        *(("status=lost", "status"), ("cursor=x", "cursor"), ("cursor=", "cursor")),
        *(("cursor=WzEsMl0", "cursor"), ("cursor=%C3%A9", "cursor"), ("email=%00", "email")),
    ],
)
def test_a_bad_parameter_of_the_list_is_named(api: Api, query: str, named: str) -> None:
    problem = check_problem(api.get(f"/orders?{query}"), 400)
    assert problem["errors"][0]["parameter"] == named


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "x", ""])
def test_a_wait_is_0_to_60_seconds(api: Api, wait: str) -> None:
    problem = check_problem(api.get("/orders/any", wait=wait), 400)
    assert problem["errors"][0]["parameter"] == "wait"


def test_without_its_database_the_api_says_try_again(start_api: Callable[..., Api]) -> None:
    api = start_api()
    api.database.engine.dispose()
    for file in api.file.parent.glob("orders.db*"):
        if file.suffix != ".lock":
            file.unlink()
    api.file.mkdir()
    for answer in (
        api.post({"email": "a@b.c", "amount": 1}),
        api.get("/orders/some"),
        api.get("/orders"),
        api.get("/new?email=a@b.c&amount=1"),
    ):
        check_problem(answer, 503)
        assert answer.headers["retry-after"] == "1"


def test_what_nobody_foresaw_is_a_500_that_shows_nothing_and_is_logged(
    start_api: Callable[..., Api], caplog: pytest.LogCaptureFixture
) -> None:
    api = start_api()
    with api.database.write() as connection:
        connection.exec_driver_sql("DROP TABLE outbox")
    answer = api.post({"email": "a@b.c", "amount": 1})
    problem = check_problem(answer, 500)
    assert "outbox" not in answer.text
    assert problem["correlationId"].startswith("OrderController(")
    (logged,) = [record for record in caplog.records if record.name == "shop.http.problems"]
    assert logged.exc_info is not None
