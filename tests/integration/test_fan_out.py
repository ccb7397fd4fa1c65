"""A record for each user on a real broker, also when a step is cut off or refused."""

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from sqlalchemy import insert, select, update

from shop.broker import free_port
from shop.db.database import Database
from shop.events import User
from shop.kafka.connection import Connection
from shop.kafka.ids import derived_id, random_id
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from shop.topics import USER_EMAIL, USER_GENERATE_READING_REPORT
from shop.users import fan_out
from shop.users.fan_out import FanOutSender, fan_out_steward
from shop.users.model import FanOutRow, State, UserRow
from shop.users.targets import TARGETS, Target
from tests.backends import Backend
from tests.reading import event_id, read_all
from tests.waiting import eventually

OpenTemplate = Callable[[], KafkaTemplate]

GO_ON = threading.Event()
TRACEPARENT = f"00-{'1' * 32}-{'2' * 16}-01"


@pytest.fixture
def database(backend: Backend, tmp_path: Path) -> Iterator[Database]:
    database = backend.open("users", tmp_path)
    yield database
    database.close()


@pytest.fixture
def target(make_topic: Callable[..., Topic[User]], monkeypatch: pytest.MonkeyPatch) -> Topic[User]:
    """A topic of this test, which the users may be sent to."""
    topic = make_topic(USER_GENERATE_READING_REPORT.codec, partitions=3)
    monkeypatch.setitem(TARGETS, topic.name, Target(topic, lambda uuid: User(uuid=uuid)))  # type: ignore[arg-type]
    return topic


@pytest.fixture
def open_template(kafka: Connection) -> Iterator[OpenTemplate]:
    opened: list[KafkaTemplate] = []

    def open_() -> KafkaTemplate:
        opened.append(KafkaTemplate(kafka, timeout_s=0, name="fan-out"))
        return opened[-1]

    yield open_
    for template in opened:
        template.close()


def register(database: Database, count: int) -> dict[str, str]:
    """More users: uuid -> e-mail."""
    users = {random_id(): f"usér{n}-{random_id()}@example.com" for n in range(count)}
    rows = [{"uuid": uuid, "email": email, "created_at": 1} for uuid, email in users.items()]
    with database.write() as connection:
        connection.execute(insert(UserRow), rows)
    return users


def ask(database: Database, target: Topic[User], id_: str = "F", asked_at: int = 1) -> None:
    with database.write() as connection:
        connection.execute(
            insert(FanOutRow),
            {"id": id_, "target": target.name, "correlation_id": f"{id_}(1)-Batch(2)",
             "traceparent": TRACEPARENT, "asked_at": asked_at, "state": State.RUNNING,
             "sent": 0, "cursor": ""},
        )  # fmt: skip


def state(database: Database, id_: str = "F") -> Any:
    query = select(FanOutRow.__table__).where(FanOutRow.id == id_)
    with database.read() as connection:
        return connection.execute(query).one()


def run(sender: FanOutSender) -> None:
    while sender.step(GO_ON):
        pass


def users_on(kafka: Connection, topic: Topic[User]) -> list[str]:
    return [topic.codec.decode(record.value())[0].uuid for record in read_all(kafka, topic)]


def test_each_user_has_one_record_that_says_who_it_is(
    kafka: Connection, open_template: OpenTemplate, database: Database, target: Topic[User]
) -> None:
    users = register(database, 50)
    ask(database, target)
    run(FanOutSender(database, open_template, chunk=7))
    records = read_all(kafka, target)
    assert sorted(users_on(kafka, target)) == sorted(users)
    for record in records:
        user, correlation_id = target.codec.decode(record.value())
        headers = dict(record.headers())
        assert record.key().decode() == user.uuid
        assert headers[USER_EMAIL].decode() == users[user.uuid]
        assert headers["traceparent"].decode() == TRACEPARENT
        assert event_id(record) == derived_id("F", "batch", user.uuid)
        assert str(correlation_id).startswith(f"F(1)-Batch(2)-_{target.name}(")
    row = state(database)
    assert (row.state, row.total, row.sent, row.cursor) == ("finished", 50, 50, max(users))


def test_what_is_no_address_makes_no_record_too_large(
    kafka: Connection, open_template: OpenTemplate, database: Database, target: Topic[User]
) -> None:
    if database.path is None:
        pytest.skip("PostgreSQL indexes no such address: its order is a dead letter, not a user")
    users = register(database, 3)
    odd = {"uuid": random_id(), "email": "x" * 1_000_000, "created_at": 1}
    with database.write() as connection:
        connection.execute(insert(UserRow), odd)
    ask(database, target)
    run(FanOutSender(database, open_template))
    assert set(users_on(kafka, target)) == {*users, odd["uuid"]}


@pytest.mark.parametrize("count", [0, 7, 14])
def test_any_number_of_users_comes_to_an_end(
    kafka: Connection,
    open_template: OpenTemplate,
    database: Database,
    target: Topic[User],
    count: int,
) -> None:
    users = register(database, count) if count else {}
    ask(database, target)
    run(FanOutSender(database, open_template, chunk=7))
    row = state(database)
    assert (row.state, row.total, row.sent) == ("finished", count, count)
    assert row.finished_at is not None
    assert sorted(users_on(kafka, target)) == sorted(users)


def test_a_chunk_published_again_has_the_same_event_ids(
    kafka: Connection, open_template: OpenTemplate, database: Database, target: Topic[User]
) -> None:
    users = register(database, 20)
    ask(database, target)
    first = FanOutSender(database, open_template, chunk=8)
    assert first.step(GO_ON)  # counts
    assert first.step(GO_ON)
    cut_off = {"cursor": "", "sent": 0}  # as if the process had died before the cursor moved
    with database.write() as connection:
        connection.execute(update(FanOutRow).values(cut_off))
    run(FanOutSender(database, open_template, chunk=5))
    records = read_all(kafka, target)
    assert len(records) == 28
    assert {(r.key().decode(), event_id(r)) for r in records} == {
        (uuid, derived_id("F", "batch", uuid)) for uuid in users
    }
    assert state(database).sent == 20


def test_a_sender_whose_cursor_another_has_moved_goes_on_from_there(
    kafka: Connection, open_template: OpenTemplate, database: Database, target: Topic[User]
) -> None:
    users = register(database, 30)
    ask(database, target)
    one, other = (FanOutSender(database, open_template, chunk=4) for _ in range(2))
    while one.step(GO_ON) and other.step(GO_ON):
        pass
    assert sorted(users_on(kafka, target)) == sorted(users)
    assert (state(database).sent, state(database).total) == (30, 30)


def test_users_who_register_meanwhile_are_counted_if_they_have_a_record(
    kafka: Connection, open_template: OpenTemplate, database: Database, target: Topic[User]
) -> None:
    users = register(database, 20)
    ask(database, target)
    sender = FanOutSender(database, open_template, chunk=3)
    for _ in range(3):
        assert sender.step(GO_ON)
    later = register(database, 20)
    run(sender)
    sent = users_on(kafka, target)
    row = state(database)
    assert set(users) <= set(sent) <= {*users, *later}
    assert row.total == row.sent == len(sent) == len(set(sent))


def test_the_oldest_goes_first(
    open_template: OpenTemplate, database: Database, target: Topic[User]
) -> None:
    register(database, 5)
    ask(database, target, "B", asked_at=2)
    ask(database, target, "C", asked_at=3)
    ask(database, target, "A", asked_at=1)
    sender = FanOutSender(database, open_template)
    for finished in ("A", "B", "C"):
        assert sender.step(GO_ON)
        assert sender.step(GO_ON)
        assert state(database, finished).state == "finished"
    assert not sender.step(GO_ON)


def set_max_message_bytes(kafka: Connection, topic: Topic[Any], size: int) -> None:
    set_to = AlterConfigOpType.SET
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=set_to)
    resource = ConfigResource(ResourceType.TOPIC, topic.name, incremental_configs=[entry])
    admin = kafka.admin()
    admin.incremental_alter_configs([resource])[resource].result(20)


def test_a_refusal_is_said_once_and_tried_again_until_it_is_over(
    kafka: Connection, open_template: OpenTemplate, database: Database, target: Topic[User],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    set_max_message_bytes(kafka, target, 100)
    monkeypatch.setattr(fan_out, "REST_S", 0.0)
    users = register(database, 5)
    ask(database, target)
    sender = FanOutSender(database, open_template)
    assert sender.step(GO_ON)
    with caplog.at_level(logging.INFO, "shop.users"):
        assert [sender.step(GO_ON) for _ in range(3)] == [False] * 3
        (line,) = caplog.messages
        assert f"fan-out F: {target} does not take its records: " in line
        assert (state(database).cursor, state(database).sent) == ("", 0)
        set_max_message_bytes(kafka, target, 100_000)
        eventually(lambda: sender.step(GO_ON))
        assert "fan-out F goes on" in caplog.messages
    assert set(users_on(kafka, target)) == set(users)
    assert state(database).state == "finished"


def test_after_a_refusal_it_rests(
    kafka: Connection, open_template: OpenTemplate, database: Database, target: Topic[User]
) -> None:
    set_max_message_bytes(kafka, target, 100)
    register(database, 1)
    ask(database, target)
    tries: list[KafkaTemplate] = []

    def open_and_note() -> KafkaTemplate:
        tries.append(open_template())
        return tries[-1]

    sender = FanOutSender(database, open_and_note)
    assert [sender.step(GO_ON) for _ in range(7)] == [True] + [False] * 6
    assert len(tries) == 1


def test_asked_to_stop_it_gives_up_on_brokers_that_do_not_answer(
    database: Database, target: Topic[User]
) -> None:
    register(database, 3)
    ask(database, target)
    nowhere = Connection(f"127.0.0.1:{free_port()}")
    steward = fan_out_steward(database, lambda: KafkaTemplate(nowhere, timeout_s=0))
    steward.start()
    eventually(lambda: state(database).total == 3)
    assert steward.stop(timeout=60)
    assert (state(database).state, state(database).cursor) == ("running", "")


def test_the_steward_sends_what_is_noted_while_it_runs(
    kafka: Connection, open_template: OpenTemplate, database: Database, target: Topic[User]
) -> None:
    users = register(database, 10)
    steward = fan_out_steward(database, open_template)
    steward.start()
    ask(database, target)
    eventually(lambda: state(database).state == "finished")
    assert steward.stop(timeout=60)
    assert sorted(users_on(kafka, target)) == sorted(users)
