import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.http.test_bad_requests import check_problem
from tests.unit.pix.conftest import Api

NO_KEYS = ["", "x" * 78, "a\0b", "a\n", "\x7f", "a\x85", 5, None, ["ana"], {}]


@pytest.mark.parametrize("key", NO_KEYS, ids=repr)
def test_a_key_that_is_none_is_refused_by_name(api: Api, key: Any) -> None:
    refused = {"chaveOrigem": api.pay(key), "chaveDestino": api.pay("ana", key)}
    refused["chave"] = api.register(key)
    for field, answer in refused.items():
        assert check_problem(answer, 400)["errors"][0]["pointer"] == f"#/{field}"


@pytest.mark.parametrize(
    "amount",
    [
        *("-1", "0", "0.001", "1e-3", "1e12", "1e999", '"NaN"', '"1_0"', '""', '"1,5"', "NaN"),
        *("null", "true", "[1]", "1" * 5000, "1.0000000000000000000000000001"),
    ],
)
def test_an_amount_that_is_none_is_refused_by_name(api: Api, amount: str) -> None:
    body = f'{{"chaveOrigem":"ana","chaveDestino":"bia","valor":{amount}}}'.encode()
    assert check_problem(api.post_bytes(body), 400)["errors"][0]["pointer"] == "#/valor"


def test_an_unknown_field_and_a_missing_one_are_named(api: Api) -> None:
    body = {"chaveOrigem": "ana", "chaveDestino": "bia", "valor": 1, "descricao": "x"}
    unknown = check_problem(api.client.post("/pix", json=body), 400)
    assert unknown["errors"][0]["pointer"] == "#/descricao"
    missing = check_problem(api.client.post("/pix", json={"valor": 1}), 400)
    assert missing["errors"][0]["pointer"] == "#/chaveOrigem"


@pytest.mark.parametrize("path", ["/pix", "/pix/keys"])
@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b"{", b"{}x", b"\xff\xfe", b'{"chave":"\xff"}', b"[" * 60_000),
        *(b'{"chave":"\\ud800"}', b'{"status":' + b"[" * 50_000, b'{"chave":"a","x":1}'),
    ],
)
def test_a_body_that_is_none_is_a_400(api: Api, path: str, body: bytes) -> None:
    check_problem(api.post_bytes(body, path), 400)


@pytest.mark.parametrize("path", ["/pix", "/pix/keys"])
def test_only_json_of_64_kib_is_taken(api: Api, path: str) -> None:
    body = json.dumps({"chave": "ana"}).encode()
    check_problem(api.post_bytes(body, path, "text/plain"), 415)
    check_problem(api.post_bytes(body.ljust(65_537), path), 413)


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "é".encode()])
def test_an_idempotency_key_is_1_to_255_printable_characters(api: Api, key: Any) -> None:
    body = {"chaveOrigem": "strict", "chaveDestino": "bia", "valor": 1}
    answer = api.client.post("/pix", json=body, headers={"Idempotency-Key": key})
    assert check_problem(answer, 400)["errors"][0]["parameter"] == "Idempotency-Key"
    assert api.rows("strict") == []


@pytest.mark.parametrize(
    ("url", "named"),
    [
        *(("keys?limit=0", "limit"), ("keys?limit=201", "limit"), ("keys?cursor=x", "cursor")),
        *(("keys?cursor=", "cursor"), ("keys?cursor=WyJcdTAwMDAiXQ", "cursor")),
        *(("any?wait=-1", "wait"), ("any?wait=61", "wait"), ("any?wait=nan", "wait")),
    ],
)
def test_a_bad_parameter_is_named(api: Api, url: str, named: str) -> None:
    problem = check_problem(api.client.get(f"/pix/{url}"), 400)
    assert problem["errors"][0]["parameter"] == named


def test_without_its_database_the_api_says_try_again(start_api: Callable[[], Api]) -> None:
    api = start_api()
    api.database.engine.dispose()
    for file in api.file.parent.glob("pix.db*"):
        if file.suffix != ".lock":
            file.unlink()
    api.file.mkdir()
    get = api.client.get
    for answer in (api.pay("ana"), api.register("a"), get("/pix/some"), get("/pix/keys")):
        check_problem(answer, 503)
        assert answer.headers["retry-after"] == "1"
