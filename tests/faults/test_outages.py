"""What a shop needs is away for a while: it waits, says why, and nothing is lost or doubled."""

import os
import signal
import threading
from contextlib import closing
from pathlib import Path

import pytest

from shop.topics import DEADLETTER
from tests.backends import URL, Backend, stranger
from tests.faults.harness import PATIENCE_S, Faulty, faulty
from tests.postgres import PostgresDatabase, PostgresServer
from tests.proxies import Forgetful
from tests.reading import read_all
from tests.waiting import eventually

MINUTE_S = 60
LOCKED_S = 15


def test_a_minute_without_brokers_and_a_locked_database_make_no_order_wait_for_ever(
    backend: Backend, tmp_path: Path
) -> None:
    with faulty(tmp_path) as shop:
        listeners = shop.listen()
        shop.post(100)
        shop.settle()

        pid = shop.broker.status().nodes[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # it keeps its connections and answers nothing
        post_for(shop, backend.times(MINUTE_S))
        os.kill(pid, signal.SIGCONT)
        shop.settle()

        with stranger(shop.databases.of("fraud")):
            post_for(shop, LOCKED_S)
        shop.settle()
        shop.audit()
        assert listeners.poll() is None
        assert read_all(shop.kafka, DEADLETTER) == []


def test_groups_whose_clients_have_lost_their_brokers_go_on(tmp_path: Path) -> None:
    """librdkafka forgets brokers for good when one says at the wrong moment that there are none:
    this is done until it did."""
    with (
        faulty(tmp_path) as shop,
        closing(Forgetful(shop.broker.bootstrap_servers)) as broker,
    ):
        shop.told = broker.bootstrap_servers
        shop.at_once = 1  # a random number of orders is a random time here
        listeners = shop.listen_and_join()
        for _ in range(40):
            shop.post(50)
            for _ in range(5):
                broker.forgets.set()
                broker.cut()
                shop.post_to_api_only(shop.moments.randrange(1, 100))
                broker.forgets.clear()
                shop.post_to_api_only(shop.moments.randrange(1, 100))
            shop.settle()
            if "has lost all its brokers" in shop.said():
                break
        else:
            pytest.fail("no client has lost its brokers: this librdkafka does not forget them")
        shop.audit()
        assert listeners.poll() is None


def test_a_rebalance_storm_loses_and_doubles_nothing(backend: Backend, tmp_path: Path) -> None:
    """A member joins or leaves, by its own will or by SIGKILL, every two seconds for a minute; on
    PostgreSQL for half of one."""
    with faulty(tmp_path) as shop:
        stays = shop.listen_and_join()
        enough = threading.Event()
        posting = threading.Thread(target=post_until, args=(shop, enough))
        posting.start()
        others = []
        for _ in range(backend.times(30)):
            if len(others) < 2 and (not others or shop.moments.random() < 0.5):
                others.append(shop.listen())
            else:
                goes = others.pop(shop.moments.randrange(len(others)))
                if shop.moments.random() < 0.5:
                    shop.kill(goes)
                else:
                    goes.send_signal(signal.SIGTERM)
            enough.wait(2.0)  # the storm's own pace
        enough.set()
        posting.join()
        assert stays.poll() is None
        assert len(shop.accepted) > backend.times(200)
        shop.settle()
        shop.audit()


def test_a_postgresql_that_crashes_while_orders_flow_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It crashes and is started again, or ends all sessions; in the middle of whatever is done."""
    server = PostgresServer()
    database = PostgresDatabase(server.url)
    monkeypatch.setenv(URL, database.url)
    try:
        with faulty(tmp_path) as shop:
            shop.database_goes_away = True
            listeners = shop.listen_and_join()
            posting = threading.Thread(target=shop.post, args=(600,))
            posting.start()
            for number in range(6):
                share = len(shop.accepted) + shop.moments.randrange(20, 80)
                eventually(lambda at=share: len(shop.accepted) >= at, f"{share} orders", PATIENCE_S)
                assert posting.is_alive(), f"outage {number} comes while orders are taken"
                if number % 2:
                    database.end_sessions()
                    continue
                server.stop()
                eventually(lambda: not shop.ready(), "readiness to turn red")
                server.start()
            posting.join()
            shop.settle()
            shop.audit()
            assert listeners.poll() is None
            assert shop.serve.poll() is None
            assert read_all(shop.kafka, DEADLETTER) == []
    finally:
        server.remove()


def post_for(shop: Faulty, seconds: float) -> None:
    enough = threading.Event()
    timer = threading.Timer(seconds, enough.set)
    timer.start()
    post_until(shop, enough)


def post_until(shop: Faulty, enough: threading.Event) -> None:
    while not enough.wait(0.2):
        shop.post_to_api_only(5)
