"""Payments, held against SIGKILL: an accepted one is never lost and is decided once."""

import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import httpx
from confluent_kafka import Producer

from shop.kafka.admin import describe_topics
from shop.kafka.wire import EVENT_ID
from shop.topics import PIX
from tests.backends import Backend
from tests.faults.harness import PATIENCE_S, Faulty, faulty
from tests.integration.test_effect_once import read_all
from tests.waiting import eventually

PAYMENTS = 2000
KILLS = 6
KNOWN = ("ana", "bia", "caio", "davi")
NAMES = (*KNOWN, "nobody")


class Payments:
    """Who pays, by HTTP and as the Java system does, and the count of what is left afterwards."""

    def __init__(self, shop: Faulty) -> None:
        self._shop = shop
        self._random = Random(shop.seed + 1)  # drawn from by another thread than the moments
        self._java = Producer(
            {"bootstrap.servers": shop.kafka.bootstrap_servers, "enable.idempotence": True}
        )
        self.accepted: dict[str, dict[str, Any]] = {}  # by identifier
        self.javas: dict[str, dict[str, Any]] = {}
        self.nameless: list[dict[str, Any]] = []  # the Java system's without an identifier
        for key in KNOWN:
            assert shop.client.post("/pix/keys", json={"chave": key}).status_code == 201

    @property
    def count(self) -> int:
        return len(self.accepted) + len(self.javas) + len(self.nameless)

    def pay(self) -> None:
        """One in four is sent twice under its key; one in eight is on the topic once more, in the
        Java form; one in ten is the Java system's own."""
        for number in range(PAYMENTS):
            payment = self._payment()
            if number % 10 == 0:
                self._java_own(payment)
                continue
            key = f"key-{number}"
            identifiers = {self._post(key, payment) for _ in range(1 + (number % 4 == 1))}
            (identifier,) = identifiers
            self.accepted[identifier] = payment
            if number % 8 == 1:
                self._as_java(identifier, payment)
        assert self._java.flush(60) == 0

    def _java_own(self, payment: dict[str, Any]) -> None:
        if self._random.random() < 0.3:
            self.nameless.append(payment)
            self._as_java(None, payment)
        else:
            identifier = f"java-{len(self.javas)}"
            self.javas[identifier] = payment
            self._as_java(identifier, payment)

    def _payment(self) -> dict[str, Any]:
        return {
            "chaveOrigem": self._random.choice(NAMES),
            "chaveDestino": self._random.choice(NAMES),
            "valor": f"{self._random.randrange(1, 1_000_000) / 100:.2f}",
        }

    def _post(self, key: str, payment: dict[str, Any]) -> str:
        """As a client does that got no answer: the same again, when the API is back."""
        while True:
            try:
                headers = {"Idempotency-Key": key}
                answer = self._shop.client.post("/pix", json=payment, headers=headers)
            except httpx.TransportError:
                eventually(self._shop.up, "the API again", PATIENCE_S)
                continue
            assert answer.status_code == 200, answer.text
            return str(answer.json()["identifier"])

    def _as_java(self, identifier: str | None, payment: dict[str, Any]) -> None:
        date = [2026, 11, 22, 12, 33, 42, 666228733]
        given = {"identifier": identifier, **payment, "dataTransferencia": date}
        self._java.produce(PIX.name, json.dumps(given), identifier)
        self._java.poll(0)

    def decided(self) -> int:
        query = "SELECT count(*) FROM payment WHERE decided_at IS NOT NULL"
        return self._shop.number("pix", query)

    def settled(self) -> bool:
        """Whether all are decided, all is published and every record was looked at."""
        (state,) = describe_topics(self._shop.kafka, [PIX.name])
        return (
            self.decided() == self.count
            and self._rows("SELECT count(*) FROM outbox") == [(0,)]
            and self._rows("SELECT sum(next_offset) FROM position")
            == [(sum(partition.high for partition in state.partitions),)]
        )

    def audit(self) -> None:
        """By reading the topic and the database: nothing lost, nothing twice."""
        event_ids = defaultdict(set)
        on_topic = set()
        for record in read_all(self._shop.kafka, PIX):
            identifier = PIX.codec.decode(record.value())[0].identifier
            on_topic.add(identifier)
            event_id = dict(record.headers() or ()).get(EVENT_ID)
            if event_id is not None:
                event_ids[identifier].add(event_id)
        assert set(event_ids) == set(self.accepted), "all accepted ones are published by us"
        assert {len(ids) for ids in event_ids.values()} == {1}, "under one event id"
        assert on_topic == {*self.accepted, *self.javas, *([None] if self.nameless else [])}

        rows = {row[0]: row[1:] for row in self._rows(
            "SELECT identifier, source_key, target_key, amount, status FROM payment"
        )}  # fmt: skip
        expected = {id_: _outcome(one) for id_, one in (self.accepted | self.javas).items()}
        assert {id_: _exact(rows.pop(id_)) for id_ in expected} == expected
        derived = sorted(map(_exact, rows.values()))
        assert derived == sorted(map(_outcome, self.nameless)), "and no other payment"
        assert self._rows("SELECT count(*) FROM receipt") == [(self.count,)], "each decided once"

    def _rows(self, query: str) -> list[Any]:
        return self._shop.rows("pix", query)


def _outcome(payment: dict[str, Any]) -> tuple[Any, ...]:
    source, target, amount = payment.values()
    status = "PROCESSADO" if {source, target} <= {*KNOWN} else "ERRO"
    return source, target, Decimal(amount), status


def _exact(row: tuple[Any, ...]) -> tuple[Any, ...]:
    source, target, amount, status = row
    return source, target, Decimal(amount), status


def test_payments_survive_the_api_and_the_listeners_being_killed(
    backend: Backend, tmp_path: Path
) -> None:
    with faulty(tmp_path) as shop, ThreadPoolExecutor(1) as client:
        payments = Payments(shop)

        def listen() -> Any:
            return shop.start("listen", "--group", "pix", "--instance", "only")

        listeners = listen()
        paying = client.submit(payments.pay)
        for kill in range(KILLS):
            if kill % 2:
                behind = payments.count - payments.decided()
                share = payments.decided() + shop.moments.randrange(1, max(2, behind))
                eventually(
                    lambda at=share: payments.decided() >= at, f"{share} outcomes", PATIENCE_S
                )
                shop.kill(listeners)
                listeners = listen()
            else:
                share = PAYMENTS * kill // KILLS + shop.moments.randrange(PAYMENTS // KILLS)
                eventually(
                    lambda at=share: payments.count >= at or paying.done(),
                    f"{share} payments",
                    PATIENCE_S,
                )
                assert not paying.done(), f"kill {kill} comes while payments are taken"
                shop.kill(shop.serve)
                shop.serve = shop.start("serve")
        paying.result()
        eventually(payments.settled, "all payments to be decided", PATIENCE_S)
        payments.audit()
