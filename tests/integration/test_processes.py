"""`shop up` and `shop demo` as a user has them: real processes, real signals."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from shop.broker import free_port
from shop.email.server import mails
from tests.waiting import eventually

SHOP = [sys.executable, "-P", "-m", "shop.cli"]


class Place:
    """A data directory with ports of its own, and what runs on it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.ports = {"SHOP_HTTP__PORT": str(free_port()), "SHOP_BROKER__PORT": str(free_port())}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SHOP_", "OTEL_"))}
        self.environment = inherited | {
            "SHOP_DATA_DIR": str(data),
            **self.ports,
        }

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*SHOP, *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
            start_new_session=True,
        )

    def up(self) -> subprocess.Popen[str]:
        """`shop up`, ready."""
        process = subprocess.Popen(
            [*SHOP, "up", "--quiet"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout
        for line in process.stdout:
            if line.startswith("The shop is ready"):
                return process
        raise AssertionError(process.stderr.read() if process.stderr else "")

    def processes(self) -> dict[str, psutil.Process]:
        """What runs here, by a word of its command line: up, serve, listen, kafka.Kafka."""
        found = {}
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("SHOP_DATA_DIR") == str(self.data)
                if ours or Path(process.cwd()).is_relative_to(self.data):
                    words = process.cmdline()
                    if "sh" in Path(words[0]).name:  # the guard of Kafka
                        words = words[:1]
                    names = ("up", "demo", "serve", "listen", "kafka.Kafka")
                    found[next((n for n in names if n in words), words[0])] = process
            except (psutil.Error, IndexError):  # just ended
                continue
        return found

    def kill(self) -> None:
        while processes := self.processes():
            for process in processes.values():
                with suppress(psutil.NoSuchProcess, ProcessLookupError):  # just ended
                    process.kill()

    def order_goes_through_to_its_mail(self) -> None:
        sent = self.run("orders", "new", "--email", "ana@example.com", "--amount", "10", "--json")
        order = json.loads(sent.stdout)
        shown = self.run("orders", "show", order["id"], "--wait", "20", "--json")
        assert json.loads(shown.stdout)["status"] == "approved"
        eventually(lambda: any(self.mails_of(order["correlation_id"])))

    def mails_of(self, correlation_id: str) -> list[str]:
        kept = mails(self.data / "mail")
        return [mail.text for mail in kept if mail.correlation_id.startswith(correlation_id)]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Shared by the tests that start and end a shop: only the first start makes Kafka's files."""
    return Place(tmp_path_factory.mktemp("warm") / "data")


@pytest.fixture
def place(warm: Place) -> Iterator[Place]:
    """A place where nothing runs, before the test and after it."""
    assert warm.processes() == {}
    yield warm
    warm.kill()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "data")
    yield place
    place.kill()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A shop that is up."""
    place = Place(tmp_path_factory.mktemp("up") / "data")
    try:
        place.up()
        yield place
    finally:
        place.kill()


def test_an_order_goes_through_to_its_mail(shop: Place) -> None:
    shop.order_goes_through_to_its_mail()


def test_a_second_shop_on_the_same_data_is_refused_in_one_line(shop: Place) -> None:
    for command in ("up", "demo"):
        result = shop.run(command)

        assert result.stderr.startswith(f"shop: a shop already runs in {shop.data} (pid ")
        assert result.stderr.count("\n") == 1
        assert result.returncode == 1


def test_an_order_that_does_not_exist_is_one_line(shop: Place) -> None:
    result = shop.run("orders", "show", "nobody-has-it")

    assert result.stderr == "shop: There is no order with this id.\n"
    assert result.returncode == 1


def test_an_amount_that_the_api_refuses_is_one_line(shop: Place) -> None:
    result = shop.run("orders", "new", "--amount", "0")

    assert result.stderr.startswith("shop: ")
    assert result.stderr.count("\n") == 1
    assert result.returncode == 1


def test_topics_are_listed_and_described(shop: Place) -> None:
    listed = json.loads(shop.run("topics", "list", "--json").stdout)
    described = shop.run("topics", "describe", "ECOMMERCE_NEW_ORDER").stdout

    assert {topic["topic"]: topic["partitions"] for topic in listed} == {
        "ECOMMERCE_DEADLETTER": 3,
        "ECOMMERCE_NEW_ORDER": 3,
        "ECOMMERCE_ORDER_APPROVED": 3,
        "ECOMMERCE_ORDER_REJECTED": 3,
        "ECOMMERCE_SEND_EMAIL": 3,
        "ECOMMERCE_SEND_MESSAGE_TO_ALL_USERS": 3,
        "ECOMMERCE_USER_GENERATE_READING_REPORT": 3,
        "orders-per-minute": 3,
        "pix-sum-by-key": 3,
        "pix-topic": 3,
        "pix-verification": 3,
    }
    assert described.count("ECOMMERCE_NEW_ORDER") == 3


@pytest.mark.parametrize("name", ["listen", "serve", "kafka.Kafka"])
def test_what_is_killed_is_started_again_and_orders_flow_on(shop: Place, name: str) -> None:
    before = shop.processes()
    before[name].kill()
    before[name].wait()

    eventually(lambda: name in shop.processes())
    if name == "serve":
        eventually(lambda: shop.run("orders", "show", "any").stderr.count("no order"))
    shop.order_goes_through_to_its_mail()
    assert shop.processes()["up"] == before["up"]


def test_ctrl_c_ends_everything(place: Place) -> None:
    up = place.up()
    assert place.processes().keys() >= {"up", "serve", "listen", "kafka.Kafka"}

    up.send_signal(signal.SIGINT)
    assert up.wait(60) == 0
    assert place.processes() == {}
    assert up.stderr is not None
    assert up.stderr.read() == ""


def test_nothing_outlives_a_shop_that_is_killed_and_the_next_one_waits_for_that(
    place: Place,
) -> None:
    up = place.up()
    first = place.processes()
    up.kill()
    up.wait()

    again = place.up()
    assert not any(process.is_running() for process in first.values())

    again.kill()
    again.wait()
    eventually(lambda: not place.processes())


def test_a_kafka_that_runs_already_is_used_and_left_running(place: Place) -> None:
    assert place.run("broker", "start").returncode == 0
    kafka = place.processes()["kafka.Kafka"]

    up = place.up()
    assert place.processes()["kafka.Kafka"] == kafka
    up.send_signal(signal.SIGTERM)
    assert up.wait(60) == 0

    assert place.processes() == {"kafka.Kafka": kafka}
    assert place.run("broker", "stop").returncode == 0
    assert place.processes() == {}


def test_a_missing_topic_is_one_line_that_names_it_and_the_command(fresh: Place) -> None:
    assert fresh.run("broker", "start").returncode == 0

    result = fresh.run("listen", "--group", "fraud")

    said = result.stderr.splitlines()[-1]
    assert "ECOMMERCE_NEW_ORDER" in said
    assert "shop topics create" in said
    assert result.returncode == 1


def test_the_demo_shows_ten_orders_to_their_end(place: Place) -> None:
    result = place.run("demo")

    assert result.returncode == 0, result.stderr
    assert result.stdout.count("mailed after") == 10
    assert "X-Correlation-Id" in result.stdout
    assert "_ECOMMERCE_SEND_EMAIL(" in result.stdout
    assert "FraudDetector -> ECOMMERCE_ORDER_" in result.stdout
    assert "Created for " in result.stdout
    assert "No orders yet" not in result.stdout, "its customer has one"
    assert "10.50  PROCESSADO" in result.stdout
    assert "99.90  ERRO" in result.stdout
    assert place.processes() == {}


def test_a_demo_on_the_same_data_takes_other_ports_where_its_own_are_taken(
    shop: Place, place: Place
) -> None:
    result = place.run("demo", **shop.ports)

    assert result.returncode == 0, result.stderr
    assert result.stdout.count("mailed after") == 10
    assert result.stderr.count("is taken") == 2


def test_a_taken_port_is_one_line(shop: Place, place: Place) -> None:
    result = place.run("up", **shop.ports)

    assert "SHOP_HTTP__PORT" in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.returncode == 1
