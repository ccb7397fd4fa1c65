import asyncio
import threading
from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import insert

from shop.orders.model import OrderRow, Status
from tests.unit.http.conftest import Api
from tests.waiting import eventually


def test_an_order_that_is_not_there_is_a_404_at_once(api: Api) -> None:
    assert api.get("/orders/nobody", wait=60).status_code == 404
    assert api.get("/orders/%00").status_code == 404


def test_waiting_ends_with_the_decision_for_all_who_wait(api: Api) -> None:
    ids = [api.post({"email": "w@example.com", "amount": 1}).json()["id"] for _ in range(3)]

    async def wait_for_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=api.url, timeout=60) as client:
            asked = [asyncio.create_task(client.get(f"/orders/{id_}?wait=60")) for id_ in ids * 3]
            await asyncio.to_thread(eventually, lambda: len(api.decisions) == 3)
            for id_ in ids:
                await asyncio.to_thread(api.decide, id_, Status.REJECTED)
            return await asyncio.gather(*asked)

    orders = [answer.json() for answer in asyncio.run(wait_for_all())]
    assert [order["id"] for order in orders] == ids * 3
    assert {order["status"] for order in orders} == {"rejected"}
    assert orders[0]["decidedAt"] == "2023-11-14T22:13:20Z"


def test_an_order_that_is_decided_is_answered_without_waiting(api: Api) -> None:
    location = api.post({"email": "w@example.com", "amount": 1}).headers["location"]
    api.decide(location.rpartition("/")[2])
    assert api.get(location, wait=60).json()["status"] == "approved"


def test_when_the_wait_is_over_the_order_is_shown_as_it_is(api: Api) -> None:
    location = api.post({"email": "w@example.com", "amount": 1}).headers["location"]
    answer = api.get(location, wait=0.05)
    assert (answer.status_code, answer.json()["status"]) == (200, "accepted")


def test_a_stopping_server_answers_those_who_wait(start_api: Callable[..., Api]) -> None:
    api = start_api()
    location = api.post({"email": "w@example.com", "amount": 1}).headers["location"]
    answers: list[httpx.Response] = []
    url = f"{api.url}{location}?wait=60"
    waiter = threading.Thread(target=lambda: answers.append(httpx.get(url, timeout=60)))
    waiter.start()
    eventually(lambda: len(api.decisions) == 1)
    api.server.stop()
    waiter.join()
    assert (answers[0].status_code, answers[0].json()["status"]) == (200, "accepted")


def test_the_list_is_newest_first_page_by_page(api: Api) -> None:
    rows = [
        {
            "id": f"page-{number}",
            "email": "page@example.com",
            "amount": "1",
            "status": "approved" if number % 2 else "accepted",
            "correlation_id": "C",
            "created_at": 1_000 + number // 2,  # two in each millisecond
        }
        for number in range(7)
    ]
    with api.database.write() as connection:
        connection.execute(insert(OrderRow), rows)
    pages = []
    url: str | None = "/orders?email=page%40example.com&limit=3"
    while url is not None:
        page = api.get(url).json()
        pages.append([order["id"] for order in page["orders"]])
        url = page["next"]
    newest = [f"page-{number}" for number in reversed(range(7))]
    assert pages == [newest[:3], newest[3:6], newest[6:]]
    approved = api.get("/orders", email="page@example.com", status="approved").json()
    assert [order["id"] for order in approved["orders"]] == ["page-5", "page-3", "page-1"]
    assert approved["next"] is None


@pytest.mark.parametrize("amount", ["10.00", "1E+2", "0.1" + "0" * 40 + "1"])
def test_an_amount_from_a_topic_is_shown_with_every_digit(api: Api, amount: str) -> None:
    row = {"id": f"d{amount}", "email": "d@example.com", "amount": amount, "status": "approved"}
    times = {"correlation_id": "C", "created_at": 10**18, "decided_at": -1}
    with api.database.write() as connection:
        connection.execute(insert(OrderRow), row | times)
    answer = api.client.get(f"/orders/d{amount.replace('+', '%2B')}")
    assert f'"amount":{amount},' in answer.text
