"""`shop verify`: each way of damaging a shop's data is found and named, and nothing else is."""

import json
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import OFFSET_END, TopicPartition

from shop.broker import EmbeddedKafka, free_port
from shop.containers import Shop
from shop.databases import Databases
from shop.db.outbox import write_outbox
from shop.kafka.admin import create_topics, describe_topics
from shop.kafka.connection import Connection
from shop.kafka.groups import GroupHasMembers, commit_for
from shop.kafka.letter import REDRIVE_OF
from shop.kafka.outbound import OutboundRecord, outbound
from shop.kafka.store import Partition
from shop.kafka.template import KafkaTemplate
from shop.kafka.wire import REDRIVE_TO
from shop.orders.placement import placement
from shop.orders.placement import take as take_orders
from shop.pix.transfer import take as take_payments
from shop.pix.transfer import transfer
from shop.reports.requests import id_of_run, run_request
from shop.reports.requests import take as take_runs
from shop.runtime import run_listeners
from shop.services import SERVICE_OF_GROUP
from shop.settings import Kafka, Settings
from shop.topics import ALL, DEADLETTER, NEW_ORDER, ORDER_APPROVED, PIX, SEND_EMAIL
from shop.verify import Kind, Report, audit
from shop.verify.groups import groups_of
from tests.backends import URL, Backend, rows
from tests.commands import run
from tests.java import ORDER, JavaProducer, envelope, order
from tests.postgres import PostgresDatabase
from tests.reading import read_all
from tests.waiting import eventually

Found = Counter[tuple[Kind, str]]  # how many, by kind and where

EMAILS = [f"customer{number}@example.com" for number in range(4)]
EARLIER = 60_000  # milliseconds


class Data:
    """A data directory of the shop; its topics are those of the module's broker, its databases are
    on `postgres`, if there is one."""

    def __init__(
        self, kafka: Connection, directory: Path, postgres: PostgresDatabase | None
    ) -> None:
        self.kafka = kafka
        self.postgres = postgres
        self.directory = directory
        self.worked: set[str] = set()
        settings = Kafka(bootstrap_servers=kafka.bootstrap_servers, session_timeout_ms=6000)
        self.settings = Settings(data_dir=directory, kafka=settings)
        self._databases = Databases(self.settings)

    def copied_database(self) -> PostgresDatabase | None:
        self.close()  # of a database that is in use there is no copy
        return self.postgres and self.postgres.copy()

    def copy(self, directory: Path, postgres: PostgresDatabase | None) -> "Data":
        """The same elsewhere, on the databases that the environment names."""
        self.close()
        shutil.copytree(self.directory, directory, ignore=shutil.ignore_patterns("kafka"))
        return Data(self.kafka, directory, postgres)

    def close(self) -> None:
        self._databases.close()

    @contextmanager
    def shop(self) -> Iterator[Shop]:
        shop = Shop(settings=self.settings)
        yield shop
        shop.databases().close()

    def take_orders(self, count: int) -> None:
        """As the API does."""
        orders = [
            placement(
                EMAILS[number % len(EMAILS)],
                Decimal(1000 * (number % 6) + 1),
                None,
                correlation_id=f"OrderController({uuid4()})",
            )
            for number in range(count)
        ]
        with self.shop() as shop, shop.databases().of("orders").write() as connection:
            take_orders(connection, orders)

    def take_payments(self) -> None:
        """As the API does."""
        payments = [
            transfer("ana", "bia", Decimal(n), correlation_id=f"PixController({uuid4()})")
            for n in range(1, 4)
        ]
        with self.shop() as shop, shop.databases().of("pix").write() as connection:
            take_payments(connection, payments)

    def ask_for_reports(self) -> None:
        """As the API does."""
        id_ = id_of_run(None)
        run = run_request(id_, correlation_id=f"ReportController({id_})", repeatable=False)
        with self.shop() as shop, shop.databases().of("reports").write() as connection:
            take_runs(connection, [run])

    def rows(self, service: str, query: str, *values: object) -> list[Any]:
        """Of a statement, which may change the data."""
        numbers = count()
        named = re.sub(r"\?", lambda _: f":v{next(numbers)}", query)
        values_by_name = {f"v{number}": value for number, value in enumerate(values)}
        return rows(self._databases.existing(service), named, **values_by_name)

    def remove(self, service: str) -> None:
        """As if the service had never had a database."""
        if self.postgres is not None:
            self.rows(service, f"DROP SCHEMA {service} CASCADE")
        else:
            (self.directory / f"{service}.db").unlink()

    @contextmanager
    def working(self) -> Iterator[None]:
        """All groups and relays, in this process."""
        self.worked.update(SERVICE_OF_GROUP)
        stop = threading.Event()
        with self.shop() as shop:
            arguments = (shop, list(SERVICE_OF_GROUP))
            options = {"instance": None, "stop": stop}
            thread = threading.Thread(target=run_listeners, args=arguments, kwargs=options)
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()

    def handle_unpublished(self) -> int:
        """Let fraud handle what there is, without a relay; how many events wait then."""
        self.worked.add("fraud")
        with self.shop() as shop:
            container = shop.listener_container(
                group="fraud", instance=None, on_failure=lambda *_: None
            )
            container.start()
            eventually(lambda: self.has_read_all("fraud"), "all handled")
            container.stop(30)
        return len(self.rows("fraud", "SELECT 1 FROM outbox"))

    def publish(self) -> None:
        with self.shop() as shop:
            relay = shop.relay(shop.databases().of("fraud"))
            relay.start()
            eventually(lambda: not self.rows("fraud", "SELECT 1 FROM outbox"), "all published")
            relay.stop()

    def settled(self) -> bool:
        """Whether every group has done all there is, and nothing waits to be published."""
        return (
            all(self.has_read_all(group) for group in SERVICE_OF_GROUP)
            and not any(self.rows(s, "SELECT 1 FROM outbox") for s in SERVICE_OF_GROUP.values())
            and not self.rows("users", "SELECT 1 FROM fan_out WHERE state = 'running'")
        )

    def has_read_all(self, group: str) -> bool:
        with self.shop() as shop:
            (reader,) = [one for one in groups_of(shop.registry(), {}) if one.name == group]
        stored = self.positions(group)
        return all(
            stored.get(Partition(topic.name, partition.number), 0) == partition.high
            for topic in describe_topics(self.kafka)
            if reader.reads(topic.name)
            for partition in topic.partitions
        )

    def positions(self, group: str) -> dict[Partition, int]:
        query = "SELECT topic, partition, next_offset FROM position WHERE consumer_group = ?"
        found = self.rows(SERVICE_OF_GROUP[group], query, group)
        return {Partition(topic, number): offset for topic, number, offset in found}

    def audit(self) -> Report:
        return audit(self.settings, patience=0.3)

    def found(self) -> Found:
        return found_in(self.audit())


def found_in(report: Report) -> Found:
    found: Found = Counter()
    for finding in report.findings:
        found[finding.kind, finding.where] += finding.count
    return found


@pytest.fixture(scope="module")
def broker(
    shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedKafka]:
    """That of the data directory in which its own is."""
    directory = tmp_path_factory.mktemp("verify")
    broker = EmbeddedKafka(directory / "kafka", port=free_port(), fast=True)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def base(broker: EmbeddedKafka, shared_backend: Backend) -> Iterator[Data]:
    """A stopped shop that has done all kinds of work, with records that no group can read and
    orders sent again as the Java API does. To be looked at only; `data` is a copy to damage."""
    kafka = Connection(broker.bootstrap_servers)
    create_topics(kafka, ALL)
    data = Data(kafka, broker.directory.parent, shared_backend.postgres)
    java = JavaProducer(kafka)
    with data.working():
        data.take_orders(24)
        data.take_payments()
        for _ in range(2):
            java.new_order(EMAILS[0], "12.5", "sent-twice")
        java.new_order(EMAILS[0], "12.5", "sent-once")
        java.new_order("nobody", "12.5")  # no order id, and no address to send a mail to
        java.send(NEW_ORDER.name, "key", b"not JSON")
        java.send(PIX.name, None, None)
        java.flush()
        eventually(data.settled, "all orders through")
        data.ask_for_reports()
        eventually(data.settled, "all reports")
    yield data
    data.close()


@pytest.fixture
def data(base: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Data]:
    postgres = base.copied_database()
    if postgres is not None:
        monkeypatch.setenv(URL, postgres.url)
    data = base.copy(tmp_path / "data", postgres)
    yield data
    data.close()
    for group in data.worked:  # the next copy has not done what these have told Kafka of
        eventually(partial(can_set, base.kafka, group, base.positions(group)), "no members left")


def can_set(kafka: Connection, group: str, offsets: Mapping[Partition, int]) -> bool:
    try:
        commit_for(kafka, group, offsets)
    except GroupHasMembers:  # one that closed while another joined is there until its session ends
        return False
    return True


def test_nothing_is_found_where_nothing_is_wrong(base: Data) -> None:
    report = base.audit()

    assert report.clean, report.findings
    assert report.records > 100
    remarks = {(remark.what, remark.where): remark.count for remark in report.remarks}
    readers = ("fraud", "users", "email-new-order", "reports-orders", "pix", "email")
    assert remarks == {("dead letters waiting", f"group {group}"): 1 for group in readers}


def test_a_kafka_of_ours_that_does_not_run_is_started_for_the_look_and_stopped(
    base: Data, broker: EmbeddedKafka
) -> None:
    broker.stop()
    try:
        said = run(Connection(""), base.directory, "verify")
        assert not broker.running
    finally:
        broker.start()

    assert (said.code, said.stderr) == (0, "")
    assert "Nothing was found in" in said.stdout


def test_each_damage_is_found_as_what_it_is_and_nothing_else_is(data: Data) -> None:
    expected: Found = Counter()
    for statement, service, kind, where in DAMAGES:
        assert data.rows(service, f"{statement} RETURNING 1") == [(1,)], statement
        expected[kind, where] += 1
    first, second, third, *_ = (data.directory / "mail/new").iterdir()
    first.unlink()
    expected[Kind.UNMAILED, "group email"] = 1
    for mail, copies in ((second, 1), (third, 3)):
        for _ in range(copies):
            shutil.copy(mail, mail.with_name(f"{uuid4()}.shop"))
    expected[Kind.DUPLICATED, "group email"] = 1  # the one that is there four times

    report = data.audit()
    assert found_in(report) == expected
    for finding in report.findings:
        assert 1 <= len(finding.examples) <= 5
        assert finding.advice
    assert "mails sent again after a crash, as is allowed" in {r.what for r in report.remarks}


def test_what_is_old_or_parked_in_an_outbox_is_unpublished(data: Data) -> None:
    record = outbound(SEND_EMAIL, "ana@example.com", "Hello", correlation_id="C")
    with data.shop() as shop, shop.databases().of("email").write() as connection:
        write_outbox(connection, [record, record, record])
    assert data.found() == {}, "young as it is, it is on its way"

    data.rows("email", "UPDATE outbox SET created_at = created_at - ? WHERE id % 3 = 0", EARLIER)
    data.rows("email", "UPDATE outbox SET parked = 'too large' WHERE id % 3 = 1")
    assert data.found() == {(Kind.UNPUBLISHED, "email database"): 2}


def test_a_record_that_a_group_has_passed_over_is_lost(data: Data) -> None:
    place = put_order(data)
    assert data.found() == {}, "it is only not read yet"

    pass_over(data, place, "fraud")
    report = data.audit()
    assert found_in(report) == {(Kind.LOST, "group fraud"): 1}
    (example,) = report.findings[0].examples
    assert example.record == f"{place.topic}[{place.number}]@{ends(data)[place] - 1}"


def test_a_decision_that_never_was_on_a_topic_is_lost(data: Data) -> None:
    put_order(data)
    waiting = data.handle_unpublished()
    assert data.found() == {}, "it is on its way"

    data.rows("fraud", "DELETE FROM outbox")
    assert data.found() == {(Kind.LOST, "group fraud"): waiting}


def test_a_database_that_is_gone_or_older_than_its_work_is_found(data: Data) -> None:
    for service in ("users", "fraud", "orders"):
        data.remove(service)
    data.rows("email", "UPDATE position SET next_offset = 1 WHERE consumer_group = 'email'")

    report = data.audit()
    behind = [finding for finding in report.findings if "database had done" in finding.what]
    assert {(f.kind, f.where) for f in behind} == {
        (Kind.LOST, f"group {group}") for group in ("users", "batch", "fraud", "orders", "email")
    }
    assert behind == list(report.findings)


def test_the_command_tells_of_findings_by_its_exit_code(data: Data) -> None:
    statement = "DELETE FROM decision WHERE order_id = (SELECT min(order_id) FROM decision)"
    before = run(data.kafka, data.directory, "verify", "--since", "0s")
    data.rows("fraud", statement)
    table = run(data.kafka, data.directory, "verify")
    as_json = run(data.kafka, data.directory, "verify", "--json")

    assert (before.code, before.stderr) == (0, "")
    assert "Nothing was found" in before.stdout
    assert (table.code, as_json.code) == (1, 1)
    assert "orders handled without a decision" in table.stdout
    found = json.loads(as_json.stdout)["findings"]
    (undecided,) = [one for one in found if one["kind"] == "undecided"]
    assert undecided["count"] == 1
    assert undecided["examples"][0]["record"].startswith(f"{NEW_ORDER}[")


def test_the_command_says_when_it_cannot_look(data: Data, tmp_path: Path) -> None:
    no_broker = run(Connection(f"127.0.0.1:{free_port()}"), data.directory, "verify")
    if data.postgres is not None:
        for service in dict.fromkeys(SERVICE_OF_GROUP.values()):
            data.remove(service)
    nowhere = run(data.kafka, tmp_path / "nowhere", "verify")

    for said in (nowhere, no_broker):
        assert said.code == 2
        assert said.stderr.startswith("shop: cannot look: ")
        assert said.stderr.count("\n") == 1


def test_nothing_is_found_in_a_busy_shop_however_often_it_is_looked_at(data: Data) -> None:
    posted = threading.Event()

    def post() -> None:
        for _ in range(30):
            data.take_orders(10)
            posted.wait(0.02)  # a pace
        posted.set()

    with data.working():
        posting = threading.Thread(target=post)
        posting.start()
        looks = 0
        while not posted.is_set() or looks < 2:
            report = data.audit()
            assert report.clean, report.findings
            looks += 1
        posting.join()
        eventually(data.settled, "all orders through")
    assert data.audit().clean


DAMAGES = [  # of one row each, which no other damage is about
    ("DELETE FROM decision WHERE order_id = (SELECT min(order_id) FROM decision)",
     "fraud", Kind.UNDECIDED, "group fraud"),
    ("UPDATE decision SET is_fraud = NOT is_fraud WHERE order_id = 'sent-once'",
     "fraud", Kind.DECIDED_TWICE, "group fraud"),
    ("UPDATE orders SET status = 'accepted' WHERE id = (SELECT min(id) FROM orders)",
     "orders", Kind.UNDECIDED, "group orders"),
    ("UPDATE orders SET status = CASE status WHEN 'approved' THEN 'rejected' ELSE 'approved' END "
     "WHERE id = (SELECT max(id) FROM orders WHERE answered_with IS NOT NULL)",
     "orders", Kind.UNDECIDED, "group orders"),
    ("INSERT INTO orders (id, email, amount, status, correlation_id, created_at, answered_with) "
     "VALUES ('lost', 'a@b', '1', 'accepted', 'C', 1, 'C')",
     "orders", Kind.LOST, "orders database"),
    ("UPDATE payment SET status = 'EM_PROCESSAMENTO' "
     "WHERE identifier = (SELECT min(identifier) FROM payment)",
     "pix", Kind.UNDECIDED, "group pix"),
    ("INSERT INTO payment (identifier, status, correlation_id, created_at) "
     "VALUES ('lost', 'EM_PROCESSAMENTO', 'C', 1)",
     "pix", Kind.LOST, "pix database"),
    ("INSERT INTO report_run (id, correlation_id, requested_at, written) "
     "VALUES ('lost', 'C', 1, 0)",
     "reports", Kind.LOST, "reports database"),
    ("DELETE FROM report WHERE name = (SELECT min(name) FROM report)",
     "reports", Kind.LOST, "group reports"),
    ("DELETE FROM customer_order WHERE order_id = 'sent-once'",
     "reports", Kind.LOST, "group reports-orders"),
    ("DELETE FROM users WHERE email = 'customer1@example.com'",
     "users", Kind.LOST, "group users"),
    ("INSERT INTO users (uuid, email, created_at) VALUES ('left out', 'x@y', 1)",
     "users", Kind.LOST, "users database"),
    ("UPDATE fan_out SET sent = sent + 1",
     "users", Kind.LOST, "users database"),
    ("DELETE FROM letter WHERE consumer_group = 'fraud'",
     "deadletters", Kind.LOST, "group deadletter"),
    ("DELETE FROM receipt WHERE consumer_group = 'orders' AND id = "
        "(SELECT max(id) FROM receipt WHERE consumer_group = 'orders')",
        "orders", Kind.LOST, "group orders"),
    ("DELETE FROM audit WHERE id = (SELECT max(id) FROM audit WHERE "
     "topic = 'ECOMMERCE_NEW_ORDER' AND \"offset\" = 1)",
     "log", Kind.LOST, "log database"),
    ('INSERT INTO audit (topic, partition, "offset", timestamp, stored_at, event_id, '
     'correlation_id, origin) SELECT topic, partition, "offset", timestamp, stored_at, event_id, '
     "correlation_id, origin FROM audit WHERE id = (SELECT min(id) FROM audit)",
     "log", Kind.DUPLICATED, "log database"),
    ("UPDATE position SET next_offset = next_offset + 100000 WHERE consumer_group = 'users' "
     "AND partition = (SELECT min(partition) FROM position WHERE consumer_group = 'users')",
     "users", Kind.BEYOND_THE_LOG, "group users"),
]  # fmt: skip


def test_decisions_of_a_customer_that_were_published_out_of_turn_are_found(data: Data) -> None:
    put_order(data)
    put_order(data)
    assert data.handle_unpublished() >= 2
    # The last two change places.
    newest = "(SELECT id FROM outbox WHERE key = ? ORDER BY id DESC LIMIT 2)"
    data.rows("fraud", f"UPDATE outbox SET id = -id WHERE id IN {newest}", EMAILS[0])
    both = "(SELECT sum(id) FROM outbox WHERE id < 0)"
    data.rows("fraud", f"UPDATE outbox SET id = id - {both} WHERE id < 0")
    data.publish()

    assert data.found() == {(Kind.OUT_OF_ORDER, "group fraud"): 1}


def test_what_another_program_did_before_a_hand_over_is_not_lost(data: Data) -> None:
    place = put_order(data, "left-to-java")
    for group in ("fraud", "users"):
        pass_over(data, place, group)
    lost = data.found()
    assert lost.keys() == {(Kind.LOST, "group fraud"), (Kind.LOST, "group users")}

    java = JavaProducer(data.kafka)
    decided = order(EMAILS[0], "12.5", "left-to-java")
    java.send(ORDER_APPROVED.name, EMAILS[0], envelope(ORDER, decided, f"Java({uuid4()})"))
    java.flush()
    commit_for(data.kafka, f"Java-{uuid4()}", {place: ends(data)[place]})

    lost[Kind.LOST, "group fraud"] -= 1  # its decision is there to be seen
    lost[Kind.LOST, "group users"] = 0
    assert data.found() == lost


def test_a_decision_under_a_second_event_id_is_found(data: Data) -> None:
    before = data.found()
    record = next(r for r in read_all(data.kafka, ORDER_APPROVED))
    event, _ = ORDER_APPROVED.codec.decode(record.value())
    with KafkaTemplate(data.kafka) as template:
        template.send(ORDER_APPROVED, event.email, event)

    assert data.found() - before == {(Kind.DECIDED_TWICE, "group fraud"): 1}


def test_a_topic_that_was_made_anew_is_found_by_the_positions_of_the_old_one(data: Data) -> None:
    before = data.found()
    admin = data.kafka.admin()
    admin.delete_topics([PIX.name])[PIX.name].result(30)
    eventually(lambda: PIX.name not in data.kafka.metadata().topics, "the end of the topic")
    gone = data.found() - before
    create_topics(data.kafka, [PIX])

    ((positions,),) = data.rows("pix", "SELECT count(*) FROM position WHERE consumer_group = 'pix'")
    assert gone == {(Kind.BEYOND_THE_LOG, "group pix"): positions}
    assert data.found() - before == gone


def test_a_redriven_record_is_looked_for_on_its_topic(data: Data) -> None:
    before = data.found()
    ((letter,),) = data.rows("deadletters", "SELECT id FROM letter WHERE consumer_group = 'fraud'")
    redrive = "INSERT INTO redrive (id, asked, plan, by, asked_at) VALUES ('r', '', '', 'ops', 1)"
    data.rows("deadletters", redrive)
    sent = "INSERT INTO letter_event (letter, at, what, redrive) VALUES (?, 1, 'redriven', 'r')"
    data.rows("deadletters", sent, letter)
    assert data.found() - before == {(Kind.LOST, "deadletters database"): 1}

    headers = [(REDRIVE_TO, b"fraud"), (REDRIVE_OF, letter.encode())]
    with KafkaTemplate(data.kafka) as template:
        template.send_record(OutboundRecord(NEW_ORDER.name, "key", b"not JSON", headers))
    assert data.found() == before


def test_letters_that_their_topic_has_deleted_are_known_from_the_database(data: Data) -> None:
    before = data.found()
    (topic,) = describe_topics(data.kafka, [DEADLETTER.name])
    empty(data.kafka, *(Partition(topic.name, state.number) for state in topic.partitions))
    assert data.found() == before


def test_where_a_partition_was_emptied_the_audit_says_what_it_cannot_judge(data: Data) -> None:
    lost = "INSERT INTO orders (id, email, amount, status, correlation_id, created_at, "
    data.rows("orders", f"{lost} answered_with) VALUES ('x', 'a@b', '1', 'accepted', 'C', 1, 'C')")
    assert data.found()[Kind.LOST, "orders database"] == 1

    empty(data.kafka, next(place for place, end in ends(data).items() if end))
    report = data.audit()
    assert found_in(report)[Kind.LOST, "orders database"] == 0
    (remark,) = [one for one in report.remarks if one.where == "orders database"]
    assert "not judged, for all of ECOMMERCE_NEW_ORDER is there only since" in remark.what


def empty(kafka: Connection, *places: Partition) -> None:
    """As retention does."""
    admin = kafka.admin()
    ends = [TopicPartition(*place, OFFSET_END) for place in places]
    for deleted in admin.delete_records(ends).values():
        deleted.result(30)


def put_order(data: Data, order_id: str | None = None) -> Partition:
    """An order of the first customer on its topic, which no group has read; where it lies."""
    before = ends(data)
    java = JavaProducer(data.kafka)
    java.new_order(EMAILS[0], "12.5", order_id)
    java.flush()
    (place,) = [place for place, end in ends(data).items() if end > before[place]]
    return place


def ends(data: Data) -> dict[Partition, int]:
    (topic,) = describe_topics(data.kafka, [NEW_ORDER.name])
    return {Partition(topic.name, state.number): state.high for state in topic.partitions}


def pass_over(data: Data, place: Partition, group: str) -> None:
    """Move the group's position to the end, past what it has not read."""
    position = "UPDATE position SET next_offset = ? WHERE consumer_group = ? AND topic = ?"
    values = (ends(data)[place], group, *place)
    data.rows(SERVICE_OF_GROUP[group], f"{position} AND partition = ?", *values)
