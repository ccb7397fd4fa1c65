import logging

import pytest
from confluent_kafka import KafkaError

from shop.kafka.connection import Reachability

ALL_DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN)


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
    assert caplog.messages[1] == "group email: brokers are back"
