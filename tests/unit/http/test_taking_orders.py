from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.unit.http.conftest import Api

UUID = "[0-9a-f]{8}-[0-9a-f-]{27}"


def test_an_order_is_accepted_with_where_it_is_and_its_correlation_id(api: Api) -> None:
    answer = api.post({"email": "ana@example.com", "amount": 10.5})
    order = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/orders/{order['id']}"
    assert answer.headers["x-correlation-id"] == order["correlationId"]
    assert (order["email"], order["status"]) == ("ana@example.com", "accepted")
    assert '"amount":10.5,' in answer.text
    assert api.get(answer.headers["location"]).json() == order


def test_the_order_waits_in_the_outbox_as_the_topic_carries_it(api: Api) -> None:
    answer = api.post({"email": "bia@example.com", "amount": 10})
    (sent,) = api.sent("bia@example.com")
    assert sent.key == "bia@example.com"
    assert sent.order.order_id == answer.json()["id"]
    assert sent.order.amount == Decimal(10)
    first = answer.headers["x-correlation-id"]
    assert first.startswith("OrderController(")
    assert sent.correlation_id.startswith(f"{first}-_ECOMMERCE_NEW_ORDER(")
    assert len(sent.headers["event-id"]) == 36


def test_a_clients_correlation_id_begins_the_orders(api: Api) -> None:
    answer = api.post({"email": "cid@example.com", "amount": 1}, X_Correlation_Id="Web(7)")
    assert answer.headers["x-correlation-id"].startswith("Web(7)-OrderController(")
    (sent,) = api.sent("cid@example.com")
    assert sent.correlation_id.startswith("Web(7)-OrderController(")


@pytest.mark.parametrize("given", ["", "two words", "x" * 201, "a\tb", "ação".encode()])
def test_a_correlation_id_that_would_break_a_log_is_refused(api: Api, given: Any) -> None:
    answer = api.client.get("/orders", headers={"X-Correlation-Id": given})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["parameter"] == "X-Correlation-Id"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("10", "10"),
        ('"10"', "10"),
        ("10.50", "10.5"),
        ('"10.5"', "10.5"),
        ("10.500", "10.5"),
        ("0.01", "0.01"),
        ("1e2", "100"),
        ("1.0E7", "10000000"),
        ("999999999999.99", "999999999999.99"),
        ("4503599627370497.5e-4", None),
    ],
)
def test_an_amount_is_its_value_in_whatever_notation(
    api: Api, written: str, kept: str | None
) -> None:
    answer = api.post_bytes(b'{"email":"n@example.com","amount":%s}' % written.encode())
    if kept is None:
        assert answer.status_code == 400
    else:
        assert f'"amount":{kept},' in answer.text
        assert api.sent("n@example.com")[-1].order.amount == Decimal(kept)


def test_the_java_callers_form_sends_an_order_and_knows_it_again(api: Api) -> None:
    url = "/new?email=java@example.com&amount=3443.90942203054&uuid=java-1"
    first, again = api.get(url), api.get(url.replace("3443.90942203054", "1"))
    assert (first.status_code, first.text) == (200, "New order sent")
    assert (again.status_code, again.text) == (200, "Old order received.")
    assert first.headers["content-type"].startswith("text/plain")
    (sent,) = api.sent("java@example.com")
    assert sent.order.amount == Decimal("3443.90942203054")


def test_without_a_uuid_the_java_form_sends_a_new_order_each_time(api: Api) -> None:
    answers = [api.get("/new", email="each@example.com", amount="1.0E1").text for _ in range(2)]
    assert answers == ["New order sent", "New order sent"]
    assert [sent.order.amount for sent in api.sent("each@example.com")] == [10, 10]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("amount=1", "email"),
        ("email=a@b.c", "amount"),
        ("email=no-address&amount=1", "email"),
        ("email=a@b.c&amount=-1", "amount"),
        ("email=a@b.c&amount=0.00", "amount"),
        ("email=a@b.c&amount=NaN", "amount"),
        ("email=a@b.c&amount=1_0", "amount"),
        ("email=a@b.c&amount=1&uuid=a/b", "uuid"),
        ("email=a@b.c&amount=1&uuid=", "uuid"),
    ],
)
def test_the_java_form_names_what_is_wrong(api: Api, query: str, named: str) -> None:
    answer = api.get(f"/new?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["parameter"] for error in answer.json()["errors"]] == [named]


def test_orders_are_still_there_after_the_server_has_stopped(tmp_path: Path) -> None:
    first = Api(tmp_path)
    location = first.post({"email": "ana@example.com", "amount": 1}).headers["location"]
    first.stop()
    second = Api(tmp_path)
    assert second.get(location).status_code == 200
    second.stop()
