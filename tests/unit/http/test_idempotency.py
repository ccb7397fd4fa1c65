import asyncio
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from shop.events import Order
from shop.kafka.outbound import outbound
from shop.orders.model import OrderRow
from shop.orders.placement import Placement, Result, placement, take
from shop.topics import NEW_ORDER
from tests.unit.http.conftest import Api


def answered(answer: httpx.Response) -> tuple[int, str, str, str]:
    headers = answer.headers
    return answer.status_code, headers["location"], headers["x-correlation-id"], answer.text


def test_the_same_key_and_body_get_the_first_answer_again(api: Api) -> None:
    body = {"email": "key@example.com", "amount": 10.5}
    first = api.post(body, Idempotency_Key="first")
    api.decide(first.json()["id"])
    again = api.post(body | {"amount": "10.50"}, Idempotency_Key="first")
    assert answered(again) == answered(first)
    assert len(api.order_ids("key@example.com")) == len(api.sent("key@example.com")) == 1


def test_the_same_id_and_body_get_the_first_answer_again(api: Api) -> None:
    body = {"email": "id@example.com", "amount": 10.5, "id": "order-1"}
    first = api.post(body)
    api.decide("order-1")
    assert answered(api.post(body)) == answered(first)
    assert len(api.sent("id@example.com")) == 1


@pytest.mark.parametrize(
    "other", [{"amount": 2}, {"email": "o@example.com"}, {"id": "o"}, {"amount": "1.01"}]
)
def test_a_key_with_another_body_is_refused(api: Api, other: dict[str, Any]) -> None:
    body = {"email": "reuse@example.com", "amount": 1}
    assert api.post(body, Idempotency_Key="reused").status_code == 202
    answer = api.post(body | other, Idempotency_Key="reused")
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:shop:problem:idempotency-key-reused"
    assert len(api.sent("reuse@example.com")) == 1


def test_an_id_of_another_order_is_refused_and_the_key_not_used_up(api: Api) -> None:
    mine = {"email": "mine@example.com", "amount": 1, "id": "taken"}
    yours = {"email": "yours@example.com", "amount": 1, "id": "taken"}
    api.post(mine)
    refused = api.post(yours, Idempotency_Key="fresh")
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "#/id"
    assert api.post(yours | {"id": "free"}, Idempotency_Key="fresh").status_code == 202


def test_a_fresh_key_for_an_order_that_is_there_gets_its_first_answer_and_is_kept(api: Api) -> None:
    body = {"email": "late@example.com", "amount": 1, "id": "late"}
    first = api.post(body)
    assert answered(api.post(body, Idempotency_Key="late-key")) == answered(first)
    other = api.post(body | {"id": "other"}, Idempotency_Key="late-key")
    assert other.status_code == 422
    assert len(api.sent("late@example.com")) == 1


@pytest.mark.parametrize("named", ["key", "id"])
def test_fifty_at_once_are_one_order_and_one_answer(api: Api, named: str) -> None:
    email = f"fifty-{named}@example.com"
    body = {"email": email, "amount": 1} | ({"id": "fifty"} if named == "id" else {})
    headers = {"Idempotency-Key": "fifty"} if named == "key" else {}

    async def post_all() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=api.url, limits=limits, timeout=60) as client:
            return await asyncio.gather(
                *(client.post("/orders", json=body, headers=headers) for _ in range(50))
            )

    answers = asyncio.run(post_all())
    assert {answered(answer) for answer in answers} == {answered(answers[0])}
    assert answers[0].status_code == 202
    assert len(api.order_ids(email)) == len(api.sent(email)) == 1


def test_a_repeat_while_the_first_is_held_up_is_in_flight(api: Api) -> None:
    body = {"email": "flight@example.com", "amount": 1}

    async def post_two() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(base_url=api.url, timeout=60) as client:
            headers = {"Idempotency-Key": "flight"}
            with api.database.write():
                both = [
                    asyncio.create_task(client.post("/orders", json=body, headers=headers))
                    for _ in range(2)
                ]
                (early,), (late,) = await asyncio.wait(both, return_when="FIRST_COMPLETED")
            return early.result(), await late

    early, late = asyncio.run(post_two())
    assert (early.status_code, late.status_code) == (409, 202)
    assert early.headers["retry-after"] == "1"
    assert answered(api.post(body, Idempotency_Key="flight")) == answered(late)


def test_repeats_within_one_group_are_seen(api: Api) -> None:
    def ask(key: str | None, id_: str | None, amount: int = 1) -> Placement:
        return placement("group@example.com", Decimal(amount), id_, correlation_id="C", key=key)

    group = [
        *(ask("g1", None), ask("g1", None), ask("g1", None, 2)),
        *(ask(None, "g2"), ask("g3", "g2"), ask("g3", "g2"), ask("g4", "g2", 2), ask("g4", "g5")),
        *(ask(None, None), ask(None, None)),
    ]
    with api.database.write() as connection:
        outcomes = take(connection, group)
    taken, repeated, key, id_ = Result.TAKEN, Result.REPEATED, Result.KEY_REUSED, Result.ID_REUSED
    assert [outcome.result for outcome in outcomes] == [
        *(taken, repeated, key),
        *(taken, repeated, repeated, id_, taken),
        *(taken, taken),
    ]
    assert outcomes[1].order_id == outcomes[0].order_id
    sent = {record.order.order_id for record in api.sent("group@example.com")}
    assert sent == {outcome.order_id for outcome in outcomes if outcome.result is taken}


def test_an_order_that_came_by_a_topic_is_known_by_its_id(api: Api) -> None:
    with api.database.write() as connection:
        connection.execute(
            insert(OrderRow),
            {
                "id": "from-a-topic",
                "email": "topic@example.com",
                "amount": "10.00",
                "status": "approved",
                "correlation_id": "Java(1)",
                "created_at": 1,
                "decided_at": 2,
            },
        )
    answer = api.post({"email": "topic@example.com", "amount": 10, "id": "from-a-topic"})
    assert (answer.status_code, answer.headers["x-correlation-id"]) == (202, "Java(1)")
    assert api.sent("topic@example.com") == []


def test_the_record_is_encoded_as_any_other_sender_does(api: Api) -> None:
    api.post({"email": "same@example.com", "amount": 1, "id": "same"})
    (sent,) = api.sent("same@example.com")
    order = Order(order_id="same", amount=sent.order.amount, email="same@example.com")
    assert sent.order == order
    assert outbound(NEW_ORDER, None, order, correlation_id="C").key == sent.key
