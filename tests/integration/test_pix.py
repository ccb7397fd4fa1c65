"""Payments on real Kafka: decided once, by the keys that are known."""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace
from sqlalchemy import insert, select
from typer.testing import CliRunner

from shop.broker import free_port
from shop.child import READY_FD
from shop.cli import app
from shop.containers import Shop
from shop.db.database import Database
from shop.db.store import DatabaseStore
from shop.events import Pix
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.groups import describe_groups
from shop.kafka.template import KafkaTemplate, SendResult
from shop.pix.listeners import PixValidator
from shop.pix.model import KeyRow, PaymentRow, Status
from shop.runtime import run_api, run_listeners
from shop.settings import Http, Kafka, Settings
from shop.topics import DEADLETTER, PIX
from tests.backends import Backend
from tests.commands import environment
from tests.integration.test_tracing import in_thread
from tests.java import JavaProducer
from tests.waiting import eventually

DATE = "[2026,11,22,12,33,42,666228733]"


class Payments:
    """The group pix on a database of its own, with the keys ana and bia, and who sends to it."""

    def __init__(self, kafka: Connection, database: Database) -> None:
        self.database = database
        self._java = JavaProducer(kafka)
        for key in ("ana", "bia"):
            self.register(key)

    def register(self, key: str) -> None:
        with self.database.write() as connection:
            connection.execute(insert(KeyRow), {"key": key, "created_at": 1})

    def send(self, **fields: str) -> None:
        """A record without headers; fields as JSON."""
        value = ",".join(f'"{name}":{field}' for name, field in fields.items())
        self._java.send(PIX.name, "k", f"{{{value}}}".encode())
        self._java.flush()

    def rows(self) -> dict[str, Any]:
        """By identifier."""
        with self.database.read() as connection:
            rows = connection.execute(select(PaymentRow.__table__)).all()
        return {row.identifier: row for row in rows}

    def decided(self, count: int) -> dict[str, Any]:
        """The rows, as soon as there are that many."""
        eventually(lambda: len(self.rows()) == count, f"{count} payments")
        return self.rows()


@pytest.fixture
def database(backend: Backend, tmp_path: Path) -> Iterator[Database]:
    database = backend.open("pix", tmp_path)
    yield database
    database.close()


@pytest.fixture
def payments(
    kafka: Connection, database: Database, listen: Callable[..., ListenerContainer]
) -> Payments:
    create_topics(kafka, [PIX, DEADLETTER])
    payments = Payments(kafka, database)
    listen(PixValidator(), store=DatabaseStore(database))
    return payments


def test_a_payment_between_known_keys_goes_through_and_any_other_is_an_error(
    payments: Payments,
) -> None:
    ways = {
        "good": ('"ana"', '"bia"', "0.1"),
        "to oneself": ('"ana"', '"ana"', "1"),
        "unknown source": ('"caio"', '"bia"', "1"),
        "unknown target": ('"ana"', '"caio"', "1"),
        "null source": ("null", '"bia"', "1"),
        "null target": ('"ana"', "null", "1"),
        "null amount": ('"ana"', '"bia"', "null"),
    }
    for name, (source, target, amount) in ways.items():
        payments.send(
            identifier=f'"{name}"',
            chaveOrigem=source,
            chaveDestino=target,
            valor=amount,
            dataTransferencia=DATE,
            status='"EM_PROCESSAMENTO"',
        )
    payments.send(identifier='"nothing"')
    decided = payments.decided(8)
    through = {name for name, row in decided.items() if row.status == "PROCESSADO"}
    assert through == {"good", "to oneself"}
    assert {decided[name].status for name in decided.keys() - through} == {"ERRO"}
    good = decided["good"]
    assert (good.source_key, good.target_key, good.amount) == ("ana", "bia", Decimal("0.1"))
    assert good.transferred_at == "2026-11-22T12:33:42.666228733"
    assert good.correlation_id.startswith("pix-topic(")
    assert good.created_at > 1_700_000_000_000
    nothing = decided["nothing"]
    assert (nothing.source_key, nothing.amount, nothing.transferred_at) == (None, None, None)


def test_payments_without_an_identifier_are_each_one_of_their_own(payments: Payments) -> None:
    for identifier in ("null", "null", '""'):
        payments.send(identifier=identifier, chaveOrigem='"ana"', chaveDestino='"bia"', valor="1")
    decided = payments.decided(3)
    assert {row.status for row in decided.values()} == {"PROCESSADO"}
    assert all(len(identifier) == 36 for identifier in decided)


def test_an_amount_is_kept_with_every_digit(payments: Payments) -> None:
    amounts = ["1E+2", "10.00", "0." + "0" * 50 + "1", "9" * 60]
    for amount in amounts:
        payments.send(identifier=f'"{amount}"', valor=amount)
    kept = {name: row.amount.as_tuple() for name, row in payments.decided(len(amounts)).items()}
    assert kept == {amount: Decimal(amount).as_tuple() for amount in amounts}


def test_a_payment_is_decided_once_also_when_it_comes_again_another_way(
    payments: Payments, template: KafkaTemplate
) -> None:
    again = {"identifier": '"once"', "chaveOrigem": '"caio"', "chaveDestino": '"bia"', "valor": "1"}
    payments.send(**again)
    first = payments.decided(1)["once"]
    payments.register("caio")  # now it would go through
    payments.send(**again)
    payments.send(**again | {"identifier": '"later"'})
    pix = Pix(identifier="once", source_key="ana", target_key="bia", amount=Decimal(2))
    for one in (pix, replace(pix, identifier="last")):
        template.send(PIX, "k", one)
    decided = payments.decided(3)
    assert decided["later"].status == "PROCESSADO", "a key is known as soon as it is registered"
    assert decided["once"] == first
    assert first.status == "ERRO"


def test_of_a_payment_that_the_api_accepted_only_the_outcome_is_added(payments: Payments) -> None:
    accepted = {
        "identifier": "accepted",
        "source_key": "ana",
        "target_key": "bia",
        "amount": Decimal("10.5"),
        "transferred_at": "2026-11-22T12:00:00",
        "status": Status.IN_PROCESS.value,
        "correlation_id": "PixController(1)",
        "created_at": 1,
        "decided_at": None,
    }
    with payments.database.write() as connection:
        connection.execute(insert(PaymentRow), accepted)
    payments.send(identifier='"accepted"', chaveOrigem='"ana"', chaveDestino='"bia"', valor="10.50")

    eventually(lambda: payments.rows()["accepted"].decided_at, "the outcome")
    row = payments.rows()["accepted"]
    changed = {name for name, value in row._asdict().items() if value != accepted[name]}
    assert changed == {"status", "decided_at"}
    assert row.status == "PROCESSADO"


class Listening:
    """`shop listen --group pix` as a process of its own, and what it handled by its log."""

    def __init__(self, kafka: Connection, data: Path, name: str) -> None:
        self._file = data / f"{name}.log"
        ready, says_ready = os.pipe()
        with self._file.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "shop.cli", "listen", "--group", "pix"],
                env=environment(kafka, data)
                | {"SHOP_LOG__LEVEL": "DEBUG", "SHOP_LOG__FORMAT": "json"}
                | {READY_FD: str(says_ready)},
                pass_fds=[says_ready],
                stdout=file,
                stderr=file,
            )
        os.close(says_ready)
        self._ready = ready

    def wait_until_ready(self) -> None:
        with os.fdopen(self._ready, "rb") as pipe:
            assert pipe.readline() == b"ready\n", self._file.read_text()

    def handled(self) -> list[str]:
        """The identifiers of the payments that this process decided on."""
        events = [json.loads(line)["event"] for line in self._file.read_text().splitlines()]
        return [found[1] for event in events if (found := re.match(r"payment (\S+): ", event))]

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(30) == 0


def test_two_processes_share_the_partitions_and_all_payments(
    kafka: Connection, template: KafkaTemplate, database: Database, tmp_path: Path
) -> None:
    create_topics(kafka, [PIX, DEADLETTER])
    processes = [Listening(kafka, tmp_path, name) for name in ("one", "two")]
    try:
        for process in processes:
            process.wait_until_ready()

        def shared() -> Any:
            (group,) = describe_groups(kafka, ["pix"])
            shares = {frozenset(member.partitions) for member in group.members}
            return shares if len(shares) == len(group.members) == 2 and all(shares) else None

        shares = eventually(shared, "both to have partitions")
        assigned = sorted(partition for share in shares for partition in share)
        assert assigned == [(PIX.name, number) for number in range(3)], "disjoint and complete"

        pixes = [Pix(identifier=str(uuid4())) for _ in range(300)]
        ours = {pix.identifier for pix in pixes}
        sends = [template.send_async(PIX, None, pix) for pix in pixes]
        by_partition = _by_partition(pixes, [send.result(60) for send in sends])
        assert len(by_partition) == 3

        def decided() -> bool:
            with database.read() as connection:
                return ours <= set(connection.scalars(select(PaymentRow.identifier)))

        eventually(decided, "all payments")
    finally:
        for process in processes:
            process.stop()
    handled = [[one for one in process.handled() if one in ours] for process in processes]
    expected = [{one for part in share for one in by_partition[part.number]} for share in shares]
    assert sorted(map(sorted, handled)) == sorted(map(sorted, expected)), "each by its owner, once"


def _by_partition(pixes: list[Pix], results: list[SendResult]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = defaultdict(set)
    for pix, result in zip(pixes, results, strict=True):
        found[result.partition].add(pix.identifier or "")
    return found


@pytest.fixture
def shop(kafka: Connection, backend: Backend, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """shop("pix", …) runs a command against the API and the group pix, and gives what it prints."""
    create_topics(kafka, [PIX, DEADLETTER])
    settings = Settings(
        data_dir=tmp_path,
        http=Http(port=free_port()),
        kafka=Kafka(bootstrap_servers=kafka.bootstrap_servers),
    )
    variables = environment(kafka, tmp_path) | {"SHOP_HTTP__PORT": str(settings.http.port)}

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments, env=variables)
        if result.exception:
            raise result.exception
        return result.stdout

    def serves() -> bool:
        try:
            return run("pix", "keys") == ""
        except Exception:
            return False

    listeners, server = Shop(settings=settings), Shop(settings=settings)
    with (
        in_thread(lambda stop: run_listeners(listeners, ["pix"], instance=None, stop=stop)),
        in_thread(lambda stop: run_api(server, stop=stop)),
    ):
        eventually(serves, "the API")
        yield run


def test_the_commands_register_keys_send_payments_and_show_them(shop: Callable[..., str]) -> None:
    assert shop("pix", "keys", "bia", "ana", "ana") == "bia\nana\nana\n"
    assert shop("pix", "keys") == "ana\nbia\n"
    assert shop("pix", "keys", "--json") == '{"chave": "ana"}\n{"chave": "bia"}\n'
    sending = ("pix", "send", "--from", "ana", "--amount", "10.50")
    lines = shop(*sending, "--to", "bia", "--count", "3").splitlines()
    assert [line[36:] for line in lines] == ["  ana  bia  10.50  PROCESSADO"] * 3
    assert len({line[:36] for line in lines}) == 3
    failed = json.loads(shop(*sending, "--to", "caio", "--json"))
    assert (failed["valor"], failed["status"]) == (10.5, "ERRO")
    assert json.loads(shop("pix", "show", failed["identifier"], "--json")) == failed
    shown = shop("pix", "show", lines[0][:36]).splitlines()
    assert shown[0] == f"identifier        {lines[0][:36]}"
    assert "status            PROCESSADO" in shown
