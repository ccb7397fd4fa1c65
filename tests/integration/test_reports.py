"""Reports and the orders they tell of: on a real broker, as our services and Java's write them."""

import json
import re
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import select

from shop.db.store import DatabaseStore
from shop.events import Order, User
from shop.kafka import correlation
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.listener import ListenerRegistry
from shop.kafka.outbound import OutboundRecord, outbound
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from shop.reports.files import ReportFiles, file_name
from shop.reports.listeners import CustomerOrders, Reports
from shop.reports.model import CustomerOrder, ReportRun
from shop.topics import (
    NEW_ORDER,
    ORDER_APPROVED,
    ORDER_REJECTED,
    USER_EMAIL,
    USER_GENERATE_READING_REPORT,
)
from tests.backends import Backend
from tests.waiting import eventually


class Service:
    """Both groups of the service, and what comes to them."""

    def __init__(
        self, kafka: Connection, template: KafkaTemplate, backend: Backend, folder: Path
    ) -> None:
        create_topics(
            kafka, [NEW_ORDER, ORDER_APPROVED, ORDER_REJECTED, USER_GENERATE_READING_REPORT]
        )
        self._template = template
        self.database = backend.open("reports", folder)
        self.files = ReportFiles(folder / "reports")
        registry = ListenerRegistry()
        registry.add(Reports(self.database, self.files))
        registry.add(CustomerOrders())
        store = DatabaseStore(self.database)
        self.containers = {
            group: ListenerContainer(
                kafka,
                group,
                registry.endpoints(group, store.work_type),
                store=store,
                concurrency=1,
                session_timeout_ms=6000,
            )
            for group in registry.groups
        }
        for container in self.containers.values():
            container.start()

    def stop(self) -> None:
        for container in self.containers.values():
            container.ask_to_stop()
        for container in self.containers.values():
            assert container.stop(timeout=60)
            assert container.failure is None
        self.database.close()

    def publish(self, record: OutboundRecord) -> None:
        self._template.publish(record, lambda *_: None)
        assert self._template.flush(30) == 0

    def order(self, topic: Topic[Order], order: Order) -> None:
        self._template.send(topic, order.email, order)

    def new_run(self) -> str:
        run_id = str(uuid4())
        values = {"id": run_id, "correlation_id": "", "requested_at": 0, "written": 0}
        with self.database.write() as connection:
            connection.execute(ReportRun.__table__.insert(), values)
        return run_id

    def request(self, uuid: str, run_id: str, email: str | None = None) -> OutboundRecord:
        """As batch sends it."""
        return outbound(
            USER_GENERATE_READING_REPORT,
            uuid,
            User(uuid=uuid),
            correlation_id=correlation.begin("ReportController", run_id),
            headers=[(USER_EMAIL, email.encode())] if email else [],
        )

    def decisions(self, email: str) -> dict[str, str]:
        query = select(CustomerOrder.order_id, CustomerOrder.decision)
        with self.database.read() as connection:
            rows = connection.execute(query.where(CustomerOrder.email == email))
            return {row.order_id: row.decision for row in rows}

    def written(self, run_id: str) -> int:
        query = select(ReportRun.written).where(ReportRun.id == run_id)
        with self.database.read() as connection:
            return connection.scalar(query) or 0

    def text(self, uuid: str) -> str:
        return self.files.read(file_name(uuid), ".txt") or ""


@pytest.fixture(scope="module")
def service(
    kafka: Connection,
    template: KafkaTemplate,
    shared_backend: Backend,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    service = Service(kafka, template, shared_backend, tmp_path_factory.mktemp("reports"))
    yield service
    service.stop()


@pytest.fixture
def email() -> str:
    return f"{uuid4()}@example.com"


def an_order(email: str, amount: str = "10") -> Order:
    return Order(order_id=str(uuid4()), amount=Decimal(amount), email=email)


def test_orders_and_decisions_end_right_in_whatever_sequence_they_come(
    service: Service, email: str
) -> None:
    first, second, third = (an_order(email) for _ in range(3))
    service.order(NEW_ORDER, first)
    eventually(lambda: service.decisions(email) == {first.order_id: "undecided"})
    service.order(ORDER_APPROVED, first)
    service.order(ORDER_REJECTED, second)
    eventually(
        lambda: (
            service.decisions(email) == {first.order_id: "approved", second.order_id: "rejected"}
        )
    )
    service.order(NEW_ORDER, second)
    service.order(NEW_ORDER, first)  # sent again, under another event id
    service.order(NEW_ORDER, third)
    expected = {
        first.order_id: "approved",
        second.order_id: "rejected",
        third.order_id: "undecided",
    }
    eventually(lambda: service.decisions(email) == expected)


def test_a_report_tells_of_the_orders_and_its_run_counts_it_once(
    service: Service, email: str
) -> None:
    uuid, run_id = str(uuid4()), service.new_run()
    orders = [an_order(email, amount) for amount in ("0.1", "3443.90942203054601120560027883")]
    for order in orders:
        service.order(NEW_ORDER, order)
        service.order(ORDER_APPROVED, order)
    eventually(lambda: [*service.decisions(email).values()] == ["approved"] * 2)
    record = service.request(uuid, run_id, email)
    for _ in range(3):  # delivered again and again: it is the same event
        service.publish(record)
    service.publish(service.request(str(uuid4()), run_id))
    eventually(lambda: service.written(run_id) == 2)
    text = service.text(uuid)
    assert f"Created for {uuid}" in text.split("\n")
    assert f"Customer    {email}" in text.split("\n")
    assert re.search(r"^approved +2 +3444\.00942203054601120560027883$", text, re.MULTILINE)
    at = [text.index(str(order.order_id)) for order in orders]
    assert at == sorted(at)
    page = service.files.read(uuid, ".html") or ""
    assert all(str(order.order_id) in page for order in orders)


def test_a_request_of_javas_batch_gets_its_report_and_is_counted(
    service: Service, template: KafkaTemplate, email: str
) -> None:
    uuid, run_id = str(uuid4()), service.new_run()
    ours = correlation.sent_to(correlation.begin("ReportController", run_id), "ALL")

    def java() -> OutboundRecord:
        hop = f"{ours}-BatchSendMessageService({uuid4()})-_ONE({uuid4()})"
        value = {
            "type": "br.com.alura.ecommerce.User",
            "payload": {"uuid": uuid},
            "correlationId": {"id": hop},
        }
        return OutboundRecord(
            USER_GENERATE_READING_REPORT.name, uuid, json.dumps(value).encode(), []
        )

    service.publish(java())
    eventually(lambda: service.written(run_id) == 1)
    assert "Customer    unknown customer" in service.text(uuid).split("\n")
    service.publish(service.request(uuid, run_id, email))
    service.publish(java())  # whose it is was learnt from the one before
    eventually(lambda: service.written(run_id) == 3)
    assert f"Customer    {email}" in service.text(uuid).split("\n")


@pytest.mark.parametrize("uuid", ["../../../escaped", "", "a/b\n", "x" * 5000])
def test_any_text_for_a_uuid_gets_a_report_within_the_directory(
    service: Service, uuid: str
) -> None:
    run_id = service.new_run()
    service.publish(service.request(uuid, run_id))
    eventually(lambda: service.written(run_id) == 1)
    assert "Created for" in service.text(uuid)
    assert not list(service.files.directory.parent.rglob("*escaped*"))


def test_a_request_that_belongs_to_no_run_gets_its_report_too(service: Service) -> None:
    uuid = str(uuid4())
    service.publish(service.request(uuid, run_id=str(uuid4())))
    eventually(lambda: service.text(uuid))


def test_a_directory_that_cannot_be_written_to_is_waited_for(service: Service) -> None:
    uuid, run_id = str(uuid4()), service.new_run()
    reports = service.files.directory
    shutil.rmtree(reports, ignore_errors=True)
    reports.write_text("a file where the folder should be")
    service.publish(service.request(uuid, run_id))
    group = service.containers["reports"]
    eventually(lambda: "cannot be written" in (group.trouble or ""))
    assert service.written(run_id) == 0
    reports.unlink()
    eventually(lambda: service.written(run_id) == 1)
    assert service.text(uuid)
    assert group.failure is None
