import logging
import weakref

import pytest
from confluent_kafka import KafkaError

from shop.kafka import connection
from shop.kafka.connection import Reachability

ALL_DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN)


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of other tests may still look for their brokers."""
    monkeypatch.setattr(connection, "_down", weakref.WeakSet())


def test_an_outage_is_two_lines_however_many_clients_meet_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "shop.kafka")
    now = 100.0
    brokers = Reachability("group email", clock=lambda: now)
    for _ in range(5):  # one client is told, another still has records of before
        brokers.failed(ALL_DOWN)
        brokers.answered()
        assert brokers.down
    assert len(caplog.messages) == 1
    now += 3
    brokers.failed(ALL_DOWN)
    assert brokers.down_for == 3

    now += 2
    brokers.answered()
    brokers.answered()

    assert not brokers.down
    assert brokers.down_for == 0
    assert len(caplog.messages) == 2
    assert caplog.messages[1] == "brokers are back"


def test_all_clients_of_a_process_are_two_lines_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "shop.kafka")
    now = 100.0
    clients = [Reachability(f"group {name}", clock=lambda: now) for name in ("email", "fraud")]
    for client in clients:
        client.failed(ALL_DOWN)
    assert [message.split(";")[0] for message in caplog.messages] == [
        "group email: no broker can be reached"
    ]

    now += 2
    clients[0].answered()
    assert [client.down for client in clients] == [False, True]
    assert len(caplog.messages) == 1
    clients[1].answered()
    assert caplog.messages[1:] == ["brokers are back"]
