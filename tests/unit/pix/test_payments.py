import asyncio
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from shop.pix.model import PaymentRow, Status
from shop.pix.transfer import Transfer, take, transfer
from tests.unit.http.test_idempotency import answered
from tests.unit.pix.conftest import Api
from tests.waiting import eventually


def test_a_payment_is_answered_with_what_the_java_system_answers(api: Api) -> None:
    before = datetime.now()
    answer = api.pay("ana", "bia", 10.5)
    payment = answer.json()
    assert answer.status_code == 200
    assert list(payment) == [
        *("identifier", "chaveOrigem", "chaveDestino", "valor", "dataTransferencia", "status")
    ]
    assert (payment["chaveOrigem"], payment["chaveDestino"]) == ("ana", "bia")
    assert '"valor":10.5,' in answer.text
    assert payment["status"] == "EM_PROCESSAMENTO"
    when = datetime.fromisoformat(payment["dataTransferencia"])
    assert when.tzinfo is None
    assert timedelta(0) <= when - before < timedelta(minutes=1)
    assert answer.headers["location"] == f"/pix/{payment['identifier']}"
    shown = api.client.get(answer.headers["location"]).json()
    assert shown == payment | {"correlationId": answer.headers["x-correlation-id"]}


def test_the_payment_waits_in_the_outbox_as_the_topic_carries_it(api: Api) -> None:
    answer = api.pay("outbox", "bia", "0.10")
    payment = answer.json()
    (sent,) = api.sent("outbox")
    assert sent.key == sent.pix.identifier == payment["identifier"]
    assert (sent.pix.source_key, sent.pix.target_key) == ("outbox", "bia")
    assert sent.pix.amount == Decimal("0.1")
    assert sent.pix.transferred_at == payment["dataTransferencia"]
    assert sent.pix.status == "EM_PROCESSAMENTO"
    assert sent.headers["__TypeId__"] == "com.alura.pix.dto.PixDTO"
    first = answer.headers["x-correlation-id"]
    assert first.startswith("PixController(")
    assert sent.headers["correlation-id"].startswith(f"{first}-_pix-topic(")


def test_what_the_java_client_sends_along_is_given_by_the_shop(api: Api) -> None:
    for given in ("null", '"mine"', "[2026,11,22,12,33]"):
        body = (
            f'{{"identifier":{given},"chaveOrigem":"ana","chaveDestino":"bia","valor":0.1,'
            f'"dataTransferencia":{given},"status":{given}}}'
        )
        answer = api.post_bytes(body.encode())
        assert answer.status_code == 200
        assert len(answer.json()["identifier"]) == 36
        assert answer.json()["status"] == "EM_PROCESSAMENTO"


def test_without_a_key_each_is_a_new_payment(api: Api) -> None:
    first, second = api.pay("each"), api.pay("each")
    assert first.json()["identifier"] != second.json()["identifier"]
    assert len(api.rows("each")) == len(api.sent("each")) == 2


def test_the_same_key_and_body_get_the_first_answer_again(api: Api) -> None:
    first = api.pay("again", amount=10.5, key="first")
    api.decide(first.json()["identifier"])
    assert answered(api.pay("again", amount="10.50", key="first")) == answered(first)
    assert len(api.rows("again")) == len(api.sent("again")) == 1


@pytest.mark.parametrize(
    "other", [{"amount": "10.01"}, {"source": "reuser"}, {"target": "caio"}], ids=str
)
def test_a_key_with_another_body_is_refused(api: Api, other: dict[str, Any]) -> None:
    assert api.pay("reuse", key="reused").status_code == 200
    answer = api.pay(**({"source": "reuse", "key": "reused"} | other))
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:shop:problem:idempotency-key-reused"
    assert len(api.rows("reuse")) == len(api.sent("reuse")) == 1
    assert api.rows("reuser") == []


def test_fifty_at_once_are_one_payment_and_one_answer(api: Api) -> None:
    body = {"chaveOrigem": "fifty", "chaveDestino": "bia", "valor": 1}

    async def post_all() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=50)
        headers = {"Idempotency-Key": "fifty"}
        async with httpx.AsyncClient(base_url=api.url, limits=limits, headers=headers) as client:
            return await asyncio.gather(*(client.post("/pix", json=body) for _ in range(50)))

    answers = asyncio.run(post_all())
    assert {answered(answer) for answer in answers} == {answered(answers[0])}
    assert answers[0].status_code == 200
    assert len(api.rows("fifty")) == len(api.sent("fifty")) == 1


def test_a_repeat_while_the_first_is_held_up_is_in_flight(api: Api) -> None:
    answers: list[httpx.Response] = []

    def pay() -> None:
        answers.append(api.pay("flight", key="flight"))

    both = [threading.Thread(target=pay) for _ in range(2)]
    with api.database.write():
        for one in both:
            one.start()
        eventually(lambda: answers, "the answer to the repeat")
    for one in both:
        one.join()
    early, late = answers
    assert (early.status_code, late.status_code) == (409, 200)
    assert early.json()["type"] == "urn:shop:problem:request-in-flight"
    assert early.headers["retry-after"] == "1"
    assert answered(api.pay("flight", key="flight")) == answered(late)


def test_repeats_within_one_group_are_seen(api: Api) -> None:
    def ask(key: str | None, amount: int = 1) -> Transfer:
        return transfer("group", "bia", Decimal(amount), correlation_id="C", key=key)

    with api.database.write() as connection:
        outcomes = take(connection, [ask("g"), ask("g"), ask("g", 2), ask(None), ask(None)])
    assert [outcome.reused for outcome in outcomes] == [False, False, True, False, False]
    assert outcomes[1] == outcomes[0]
    sent = [one.pix.identifier for one in api.sent("group")]
    assert sent == [outcomes[number].payment.identifier for number in (0, 3, 4)]


def test_waiting_ends_with_the_outcome(api: Api) -> None:
    locations = [api.pay("wait").headers["location"] for _ in range(2)]
    answers: dict[str, Any] = {}

    def wait(location: str) -> None:
        answers[location] = httpx.get(f"{api.url}{location}?wait=60", timeout=60).json()

    waiting = [threading.Thread(target=wait, args=(location,)) for location in locations]
    for one in waiting:
        one.start()
    eventually(lambda: len(api.outcomes) == 2, "both to wait")
    outcomes = (Status.PROCESSED, Status.FAILED)
    for location, status in zip(locations, outcomes, strict=True):
        api.decide(location.rpartition("/")[2], status)
    for one in waiting:
        one.join()
    assert [answers[location]["status"] for location in locations] == ["PROCESSADO", "ERRO"]
    assert api.client.get(f"{locations[0]}?wait=60").json()["status"] == "PROCESSADO"


def test_when_the_wait_is_over_the_payment_is_shown_as_it_is(api: Api) -> None:
    answer = api.client.get(api.pay("patient").headers["location"], params={"wait": 0.05})
    assert (answer.status_code, answer.json()["status"]) == (200, "EM_PROCESSAMENTO")


def test_a_stopping_server_answers_those_who_wait(start_api: Callable[[], Api]) -> None:
    api = start_api()
    location = api.pay("ana").headers["location"]
    answers: list[httpx.Response] = []
    url = f"{api.url}{location}?wait=60"
    waiter = threading.Thread(target=lambda: answers.append(httpx.get(url, timeout=60)))
    waiter.start()
    eventually(lambda: len(api.outcomes) == 1, "one to wait")
    api.server.stop()
    waiter.join()
    assert answers[0].json()["status"] == "EM_PROCESSAMENTO"


def test_a_payment_that_is_not_there_is_a_404_at_once(api: Api) -> None:
    assert api.client.get("/pix/nobody?wait=60").status_code == 404
    assert api.client.get("/pix/%00").status_code == 404


@pytest.mark.parametrize("amount", ["10.00", "1E+2", "0.1" + "0" * 40 + "1"])
def test_a_payment_from_the_topic_is_shown_with_every_digit_and_without_what_it_lacks(
    api: Api, amount: str
) -> None:
    row = {"identifier": f"d{amount}", "amount": amount, "status": "ERRO", "correlation_id": "C"}
    with api.database.write() as connection:
        connection.execute(insert(PaymentRow), row | {"created_at": 1, "decided_at": 1})
    answer = api.client.get(f"/pix/d{amount.replace('+', '%2B')}")
    assert f'"chaveDestino":null,"valor":{amount},"dataTransferencia":null,' in answer.text
