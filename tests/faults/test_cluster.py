"""Three brokers that are killed while orders are posted: each is accepted, none is lost."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import ConfigResource, ResourceType

from shop.kafka.errors import BrokerUnreachable
from shop.topics import NEW_ORDER
from tests.backends import Backend
from tests.commands import run
from tests.faults.harness import PATIENCE_S, Faulty, faulty
from tests.waiting import eventually

BETWEEN_ORDERS_S = 0.06
OUTAGE_S = 20.0


@pytest.fixture(scope="module")
def shop(shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """Two processes that listen, three brokers. A test leaves all of them running."""
    with faulty(tmp_path_factory.mktemp("cluster"), nodes=3) as cluster:
        cluster.listen()
        cluster.listen()
        yield cluster


@contextmanager
def orders_without_pause(shop: Faulty) -> Iterator[None]:
    """For the block, from another thread; afterwards all of them went their whole way, once."""
    enough = Event()
    failures: list[BaseException] = []

    def post() -> None:
        try:
            while not enough.wait(BETWEEN_ORDERS_S):
                shop.post_to_api_only(1)
        except BaseException as error:
            failures.append(error)

    posting = Thread(target=post)
    posting.start()
    try:
        some_are_accepted(shop)
        yield
    finally:
        enough.set()
        posting.join()
    try:
        assert failures == []
        assert shop.serve.poll() is None
        shop.settle()
        shop.audit()
    except AssertionError:
        shop.explain()
        raise


def some_are_accepted(shop: Faulty) -> None:
    count = len(shop.accepted) + 20
    eventually(lambda: len(shop.accepted) >= count, "20 more orders", PATIENCE_S)


def all_until_now_are_decided(shop: Faulty) -> None:
    count = len(shop.accepted)
    eventually(lambda: shop.decided() >= count, f"{count} decisions", PATIENCE_S)


def leader(shop: Faulty) -> int | None:
    """The broker that leads partition 0 of NEW_ORDER, None while there is none."""
    try:
        found = shop.kafka.metadata(1.0).topics[NEW_ORDER.name].partitions[0].leader
    except (BrokerUnreachable, KeyError):
        return None
    return found if found > 0 else None


def has_joined(shop: Faulty) -> bool:
    """Whether Kafka has made its topic for groups."""
    try:
        return shop.members("fraud") > 0
    except KafkaException:  # its coordinator is on the way
        return False


def is_degraded(shop: Faulty) -> bool:
    """Whether the API says that it takes orders, but something is amiss."""
    ready = shop.client.get("/health/ready")
    return ready.status_code == 200 and ready.json()["status"] == "degraded"


def in_sync(shop: Faulty) -> bool:
    """Whether every broker has every record that it should have."""
    return all(
        len(partition.isrs) == 3
        for topic in shop.kafka.metadata().topics.values()
        for partition in topic.partitions.values()
    )


def test_every_topic_has_three_copies_of_which_two_must_be_in_sync(shop: Faulty) -> None:
    producer = Producer(
        {
            "bootstrap.servers": shop.broker.bootstrap_servers,
            "transactional.id": "any",
            "log_level": 0,
        }
    )
    producer.init_transactions(60)  # Kafka makes its topic for them at the first
    eventually(lambda: has_joined(shop), "a member of a group", PATIENCE_S)

    topics = shop.kafka.metadata().topics
    assert {"__consumer_offsets", "__transaction_state", NEW_ORDER.name} <= set(topics)
    for name, topic in topics.items():
        assert {len(partition.replicas) for partition in topic.partitions.values()} == {3}, name
    admin = shop.kafka.admin()
    configs = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in topics])
    for resource, config in configs.items():
        assert config.result(60)["min.insync.replicas"].value == "2", resource


def test_a_leader_killed_five_times_costs_no_order(shop: Faulty, shared_backend: Backend) -> None:
    with orders_without_pause(shop):
        for _ in range(shared_backend.times(5)):
            killed = eventually(lambda: leader(shop), "a leader", PATIENCE_S)
            shop.broker.kill(killed)
            eventually(lambda k=killed: leader(shop) not in (None, k), "another one", PATIENCE_S)
            shop.broker.start_again()
            all_until_now_are_decided(shop)
            eventually(lambda: in_sync(shop), "all replicas in sync", PATIENCE_S)


def test_two_of_three_brokers_away_for_a_while_cost_no_order(shop: Faulty) -> None:
    with orders_without_pause(shop):
        shop.broker.kill(1)
        shop.broker.kill(3)
        until = time.monotonic() + OUTAGE_S
        status = run(shop.kafka, shop.data, "broker", "status")
        some_are_accepted(shop)
        eventually(lambda: is_degraded(shop), "readiness to tell of it", PATIENCE_S)
        eventually(lambda: time.monotonic() > until, "the end of the outage", PATIENCE_S)
        shop.broker.start()
    assert status.code == 1
    states = [line.split("  ")[2] for line in status.stdout.splitlines()[:3]]
    still_runs = f"pid {shop.broker.status().nodes[1].pid}, answers"
    assert states == ["does not run", still_runs, "does not run"]


def test_all_brokers_killed_cost_no_order(shop: Faulty) -> None:
    with orders_without_pause(shop):
        shop.broker.kill()
        assert not shop.broker.running
        some_are_accepted(shop)
        shop.broker.start()
        all_until_now_are_decided(shop)
