"""`shop groups`: looking at groups, and swapping a running service for another program and back."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from shop.containers import Shop
from shop.databases import Databases
from shop.db.database import Database
from shop.db.tables import position
from shop.handover import HandOver, HandOverRefused
from shop.kafka.admin import create_topics, describe_topics
from shop.kafka.groups import commit_for, committed_offsets, describe_groups
from shop.kafka.store import Partition
from shop.services import SERVICE_OF_GROUP
from shop.settings import Kafka, Settings
from shop.topics import (
    NEW_ORDER,
    ORDER_APPROVED,
    ORDER_REJECTED,
    SEND_EMAIL,
    SEND_MESSAGE_TO_ALL_USERS,
)
from shop.wiring.unfinished import UNFINISHED
from tests.backends import Backend, rows
from tests.commands import Said, ShopPlace
from tests.java import JavaFraud, JavaProducer
from tests.reading import read_all
from tests.waiting import eventually

PARTITIONS = [Partition(NEW_ORDER.name, number) for number in range(NEW_ORDER.partitions)]


@pytest.fixture(scope="module")
def shop_place(
    shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ShopPlace]:
    """One of this module's own for SQLite, and one for PostgreSQL."""
    place = ShopPlace(tmp_path_factory.mktemp("place"))
    yield place
    place.close()


def in_database(place: ShopPlace, service: str, query: str, **values: object) -> list[Any]:
    with closing(Databases(Settings(data_dir=place.data))) as databases:
        return rows(databases.existing(service), query, **values)


def refused(said: Said) -> str:
    assert said.stderr.startswith("shop: "), said
    assert said.stderr.count("\n") == 1
    assert (said.stdout, said.code) == ("", 1)
    return said.stderr


def name_of_its_own() -> str:
    return f"Java-{uuid4().hex[:8]}"


def ends(place: ShopPlace) -> dict[Partition, int]:
    (state,) = describe_topics(place.kafka, [NEW_ORDER.name])
    return {Partition(state.name, p.number): p.high for p in state.partitions}


def put_orders(place: ShopPlace, order_ids: Sequence[str]) -> None:
    java = JavaProducer(place.kafka)
    for number, order_id in enumerate(order_ids):
        java.new_order(f"c{number}@example.com", "4500" if number % 3 else "4499.99", order_id)
    java.flush()


def steps(said: Said) -> dict[int, tuple[int | None, int]]:
    assert said.code == 0, said.stderr
    return {row["partition"]: (row["before"], row["now"]) for row in json.loads(said.stdout)}


def group(place: ShopPlace, name: str) -> dict[str, Any]:
    said = place.run("groups", "describe", name, "--json")
    assert said.code == 0, said.stderr
    (found,) = json.loads(said.stdout)
    return dict(found)


def caught_up(place: ShopPlace, name: str) -> bool:
    """Whether the group's position is at the end of every partition that has records."""
    standing = {p["partition"]: p["lag"] for p in group(place, name)["partitions"]}
    return all(standing.get(p.number) == 0 for p, end in ends(place).items() if end)


HandingOver = Callable[..., HandOver]


@pytest.fixture
def hand_over(shop_place: ShopPlace) -> Iterator[HandingOver]:
    """hand_over(giver, taker, unfinished): what the command makes, to be taken step by step."""
    kafka = Kafka(bootstrap_servers=shop_place.kafka.bootstrap_servers)
    shop = Shop(settings=Settings(data_dir=shop_place.data, kafka=kafka))
    yield lambda giver, taker, unfinished=UNFINISHED: HandOver(
        shop.connection(), shop.databases(), shop.registry(), SERVICE_OF_GROUP, unfinished,
        giver, taker,
    )  # fmt: skip
    shop.databases().close()


@pytest.fixture
def java(shop_place: ShopPlace) -> str:
    """A group that is not ours, with a position at the end of NEW_ORDER, which has records."""
    put_orders(shop_place, [f"{uuid4()}" for _ in range(20)])
    name = name_of_its_own()
    commit_for(shop_place.kafka, name, ends(shop_place))
    return name


def test_groups_are_listed_whosever_they_are_and_running_or_not(
    shop_place: ShopPlace, java: str
) -> None:
    with shop_place.running("listen", "--group", "users"):
        eventually(lambda: caught_up(shop_place, "users"))
        put_orders(shop_place, ["one more"])
        eventually(lambda: caught_up(shop_place, "users"))
        running = group(shop_place, "users")
        listed = json.loads(shop_place.run("groups", "list", "--json").stdout)

    groups = {row["group"]: row for row in listed}
    assert groups["users"]["service"] == "users"
    assert (groups["users"]["state"], groups["users"]["members"]) == ("stable", 1)
    assert groups["users"]["lag"] == 0
    assert groups[java] == {
        "group": java, "service": None, "state": "empty", "members": 0, "topics": 1, "lag": 1,
    }  # fmt: skip
    (member,) = running["members"]
    assert member["partitions"] == [f"{NEW_ORDER}[{number}]" for number in range(3)]
    assert {p["database"] for p in running["partitions"]} <= {*ends(shop_place).values(), None}

    stopped = group(shop_place, "users")
    assert (stopped["state"], stopped["members"]) == ("empty", [])
    assert [p["database"] for p in stopped["partitions"]] == [
        p["database"] for p in running["partitions"]
    ]
    table = shop_place.run("groups", "describe", "users", java).stdout
    assert "users: empty, 0 members, of the service users" in table
    assert f"{java}: empty, 0 members" in table


def test_lag_is_counted_from_the_database_and_else_from_kafka(
    shop_place: ShopPlace, java: str
) -> None:
    assert shop_place.run("groups", "hand-over", java, "email-new-order").code == 0
    behind = dict.fromkeys(PARTITIONS, 0)
    commit_for(shop_place.kafka, "email-new-order", behind)
    commit_for(shop_place.kafka, java, behind)

    assert group(shop_place, "email-new-order")["lag"] == 0
    assert group(shop_place, java)["lag"] == sum(ends(shop_place).values())


def test_looking_makes_no_database(shop_place: ShopPlace) -> None:
    assert shop_place.run("groups", "list").code == 0
    assert shop_place.run("groups", "describe", "orders").code == 1
    assert not list(shop_place.data.glob("orders.db*"))


def test_a_group_that_nobody_knows_is_one_line(shop_place: ShopPlace) -> None:
    said = shop_place.run("groups", "describe", "nobody-has-it")
    assert "`shop groups list`" in refused(said)


def test_a_swap_for_a_java_service_and_back_decides_each_order_once(
    shop_place: ShopPlace,
) -> None:
    orders = [f"{uuid4()}" for _ in range(90)]
    first, second, third = orders[:30], orders[30:60], orders[60:]
    java = f"FraudDetectorService-{uuid4().hex[:8]}"

    put_orders(shop_place, first)
    with shop_place.running("listen", "--group", "fraud"):
        eventually(lambda: set(first) <= decided(shop_place).keys())
        running = shop_place.run("groups", "hand-over", "fraud", java)
        assert "fraud has members" in refused(running)
    put_orders(shop_place, second)  # while nobody listens
    given = shop_place.run("groups", "hand-over", "fraud", java, "--json")
    with JavaFraud(shop_place.kafka, java):
        eventually(lambda: set(second) <= decided(shop_place).keys())
        running = shop_place.run("groups", "hand-over", java, "fraud")
        assert f"{java} has members" in refused(running)
    put_orders(shop_place, third)
    handed_back = shop_place.run("groups", "hand-over", java, "fraud", "--json")
    with shop_place.running("listen", "--group", "fraud"):
        eventually(lambda: set(third) <= decided(shop_place).keys())
        eventually(lambda: caught_up(shop_place, "fraud"))

    counted = decided(shop_place)
    assert {order: counted[order] for order in orders} == dict.fromkeys(orders, 1)
    assert {before for before, _ in steps(given).values()} == {None}
    assert {n: now for n, (_, now) in steps(given).items()} == {
        n: before for n, (before, _) in steps(handed_back).items()
    }


def decided(place: ShopPlace) -> Counter[str]:
    """How many decisions on the topics each order id has."""
    return Counter(
        str(ORDER_APPROVED.codec.decode(record.value())[0].order_id)
        for topic in (ORDER_APPROVED, ORDER_REJECTED)
        for record in read_all(place.kafka, topic)
    )


def test_handing_over_again_does_the_same_and_a_dry_run_nothing(
    shop_place: ShopPlace, java: str
) -> None:
    taker = name_of_its_own()
    dry = shop_place.run("groups", "hand-over", java, taker, "--dry-run", "--json")
    assert committed_offsets(shop_place.kafka, [taker]) == {taker: {}}

    done = shop_place.run("groups", "hand-over", java, taker, "--json")
    again = shop_place.run("groups", "hand-over", java, taker, "--json")

    assert dry == done
    assert steps(done) == {n: (None, end) for (_, n), end in ends(shop_place).items()}
    assert steps(again) == {n: (end, end) for (_, n), end in ends(shop_place).items()}
    assert committed_offsets(shop_place.kafka, [taker])[taker] == ends(shop_place)
    table = shop_place.run("groups", "hand-over", java, taker).stdout
    assert f"`shop groups hand-over {taker} {java}`" in table


def test_our_taker_gets_the_position_in_kafka_and_in_its_database(
    shop_place: ShopPlace, java: str
) -> None:
    assert shop_place.run("groups", "hand-over", java, "users").code == 0

    assert committed_offsets(shop_place.kafka, ["users"])["users"] == ends(shop_place)
    positions = "SELECT topic, partition, next_offset FROM position WHERE consumer_group = 'users'"
    stored = in_database(shop_place, "users", positions)
    topics = "SELECT topic FROM topic_read WHERE consumer_group = 'users'"
    known = in_database(shop_place, "users", topics)
    assert {Partition(topic, n): offset for topic, n, offset in stored} == ends(shop_place)
    assert known == [(NEW_ORDER.name,)]


def test_where_the_giver_has_no_position_the_taker_begins_with_the_log(
    shop_place: ShopPlace,
) -> None:
    giver, taker = name_of_its_own(), name_of_its_own()
    commit_for(shop_place.kafka, giver, {PARTITIONS[1]: 0})

    table = shop_place.run("groups", "hand-over", giver, taker).stdout

    assert table.count(f"{giver} has no position here: from the beginning of the log") == 2
    assert committed_offsets(shop_place.kafka, [taker])[taker] == dict.fromkeys(PARTITIONS, 0)


def test_what_would_lose_or_double_records_is_refused(shop_place: ShopPlace, java: str) -> None:
    def hand_over(giver: str, taker: str) -> str:
        return refused(shop_place.run("groups", "hand-over", giver, taker))

    assert "does not listen to ECOMMERCE_NEW_ORDER" in hand_over(java, "orders")
    assert "has no position in any topic" in hand_over("nobody-has-it", java)
    assert "to itself" in hand_over(java, java)
    beyond = name_of_its_own()
    commit_for(shop_place.kafka, beyond, {PARTITIONS[0]: 10**9})
    assert "whose end is" in hand_over(beyond, java)
    taker = name_of_its_own()
    with JavaFraud(shop_place.kafka, taker):
        eventually(lambda: describe_groups(shop_place.kafka, [taker])[0].members)
        assert f"group {taker} has members" in hand_over(java, taker)


def test_positions_in_a_topic_made_anew_or_gone_are_not_handed_over(
    shop_place: ShopPlace, java: str
) -> None:
    sends = name_of_its_own()
    commit_for(shop_place.kafka, sends, {Partition(SEND_EMAIL.name, 0): 0})
    assert shop_place.run("groups", "hand-over", sends, "email").code == 0
    admin = shop_place.kafka.admin()
    admin.delete_topics([SEND_EMAIL.name])[SEND_EMAIL.name].result(30)
    eventually(lambda: SEND_EMAIL.name not in shop_place.kafka.metadata().topics)

    gone = refused(shop_place.run("groups", "hand-over", "email", sends))
    create_topics(shop_place.kafka, [SEND_EMAIL])
    anew = refused(shop_place.run("groups", "hand-over", "email", sends))
    commit_for(shop_place.kafka, sends, {Partition(SEND_EMAIL.name, 0): 0})
    chosen = shop_place.run("groups", "hand-over", sends, "email")

    assert f"{SEND_EMAIL} does not exist" in gone
    assert "made anew" in anew
    assert chosen.code == 0
    assert shop_place.run("groups", "hand-over", "email", sends).code == 0


def test_what_the_giver_has_not_published_yet_is_not_left_behind(
    shop_place: ShopPlace, java: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shop.handover.PATIENCE_S", 0.1)
    assert shop_place.run("groups", "hand-over", java, "fraud").code == 0
    insert = "INSERT INTO outbox (topic, headers, created_at) VALUES ('T', :headers, 0)"
    in_database(shop_place, "fraud", insert, headers=b"\x90")
    said = refused(shop_place.run("groups", "hand-over", "fraud", java))
    in_database(shop_place, "fraud", "UPDATE outbox SET parked = 'no broker takes it'")

    assert "1 records that the service fraud has sent are not published" in said
    assert shop_place.run("groups", "hand-over", "fraud", java).code == 0


def test_a_fan_out_that_has_begun_is_not_left_behind(
    shop_place: ShopPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shop.handover.PATIENCE_S", 0.1)
    java = name_of_its_own()
    commit_for(shop_place.kafka, java, {Partition(SEND_MESSAGE_TO_ALL_USERS.name, 0): 0})
    assert shop_place.run("groups", "hand-over", java, "batch").code == 0
    insert = (
        "INSERT INTO fan_out (id, target, correlation_id, asked_at, state, sent, cursor) "
        "VALUES ('f', 'T', 'c', 0, 'running', 1, 'half-way')"
    )
    in_database(shop_place, "users", insert)
    said = refused(shop_place.run("groups", "hand-over", "batch", java))
    in_database(shop_place, "users", "UPDATE fan_out SET state = 'finished'")

    assert "group batch has begun work and not finished it (1)" in said
    assert shop_place.run("groups", "hand-over", "batch", java).code == 0


def test_the_giver_is_looked_at_after_what_it_had_to_finish(
    shop_place: ShopPlace, java: str, hand_over: HandingOver
) -> None:
    over = hand_over(java, "fraud")
    over.carry_out(over.plan())

    def finish(database: Database) -> int:
        with database.write() as connection:
            connection.execute(update(position).values(next_offset=0))
        return 0

    plan = hand_over("fraud", java, {"fraud": finish}).plan()

    assert {step.now for step in plan.steps} == {0}


def test_a_giver_that_moves_on_during_the_hand_over_is_noticed(
    shop_place: ShopPlace, java: str, hand_over: HandingOver
) -> None:
    over = hand_over(java, name_of_its_own())
    plan = over.plan()
    commit_for(shop_place.kafka, java, {PARTITIONS[0]: 0})

    with pytest.raises(HandOverRefused, match=f"{java} was started .* do it again"):
        over.carry_out(plan)
    over.carry_out(over.plan())


def test_our_taker_commits_nothing_between_kafka_and_its_database(
    shop_place: ShopPlace, java: str, hand_over: HandingOver, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = hand_over(java, "users")
    plan = over.plan()

    def commit_and_look(*arguments: Any) -> None:
        commit_for(*arguments)
        move = "INSERT INTO position VALUES ('users', :topic, 0, 0) ON CONFLICT DO NOTHING"
        with pytest.raises(OperationalError, match="lock"):
            in_database(shop_place, "users", move, topic=NEW_ORDER.name)

    monkeypatch.setattr("shop.handover.commit_for", commit_and_look)
    over.carry_out(plan)


def test_a_hand_over_that_kafka_refuses_leaves_our_takers_database_as_it_was(
    shop_place: ShopPlace, java: str, hand_over: HandingOver
) -> None:
    assert shop_place.run("groups", "hand-over", java, "users").code == 0
    put_orders(shop_place, ["later"])
    commit_for(shop_place.kafka, java, ends(shop_place))
    before = [p["database"] for p in group(shop_place, "users")["partitions"]]
    over = hand_over(java, "users")
    plan = over.plan()
    with JavaFraud(shop_place.kafka, "users"):
        eventually(lambda: describe_groups(shop_place.kafka, ["users"])[0].members)
        with pytest.raises(HandOverRefused, match="joined group users, and nothing was changed"):
            over.carry_out(plan)

    assert [p["database"] for p in group(shop_place, "users")["partitions"]] == before


def test_a_taker_that_nobody_knows_is_pointed_out(
    shop_place: ShopPlace, java: str, hand_over: HandingOver
) -> None:
    taker = name_of_its_own()

    new = shop_place.run("groups", "hand-over", java, taker)

    assert f"shop: no group {taker} was seen before" in new.stderr
    assert new.code == 0
    assert hand_over(java, taker).plan().taker_seen
    assert hand_over(java, "log").plan().taker_seen


def test_what_strangers_call_themselves_does_not_steer_the_terminal(
    shop_place: ShopPlace, java: str
) -> None:
    rogue = f"{name_of_its_own()}\x1b[2J\x9b"
    with JavaFraud(shop_place.kafka, rogue):
        eventually(lambda: describe_groups(shop_place.kafka, [rogue])[0].members)
        said = [
            shop_place.run("groups", "list").stdout,
            shop_place.run("groups", "describe", rogue).stdout,
            refused(shop_place.run("groups", "hand-over", rogue, java)),
        ]

    assert all("\\x1b[2J\\x9b" in text for text in said)
    assert not any("\x1b" in text or "\x9b" in text for text in said)


def test_a_group_left_out_of_all_is_free_for_another_program(shop_place: ShopPlace) -> None:
    with shop_place.running("listen", "--all", "--without", "fraud"):
        states = describe_groups(shop_place.kafka, ["fraud", "users"])

    assert [len(state.members) for state in states] == [0, 1]
