"""Reports held against SIGKILL: each is there whole, and is counted once."""

import random
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from shop.events import Order, User
from shop.kafka import correlation
from shop.kafka.ids import derived_id
from shop.kafka.outbound import OutboundRecord, outbound
from shop.kafka.template import KafkaTemplate
from shop.topics import NEW_ORDER, ORDER_APPROVED, USER_EMAIL, USER_GENERATE_READING_REPORT
from tests.backends import Backend
from tests.faults.harness import PATIENCE_S, Faulty, faulty
from tests.waiting import eventually

USERS = 1000
AGAIN = 200  # of them get another report
KILLS = 4

TEXT = re.compile(
    r"Reading report\n=+\n\nCreated for (?P<uuid>\S+)\nCustomer    (?P<email>\S+)\n"
    r".*^approved +1 +(?P<amount>\d+\.\d\d)$.*^all +1 +(?P=amount)\n\Z",
    re.MULTILINE | re.DOTALL,
)


def uuid_of(number: int) -> str:
    return derived_id("", "user", number)


def email_of(number: int) -> str:
    return f"customer{number}@example.com"


def have_ordered(template: KafkaTemplate) -> None:
    """An approved order of each user: of 0.00, 0.01, ..."""
    for number in range(USERS):
        order = Order(
            order_id=f"order-{number}", amount=Decimal(number) / 100, email=email_of(number)
        )
        for topic in (NEW_ORDER, ORDER_APPROVED):
            template.send_async(topic, order.email, order)
    assert template.flush(30) == 0


def requests(run: str, users: int) -> Sequence[OutboundRecord]:
    """As batch sends them; one in eight is there twice, as after a crash of its own."""
    records = []
    for number in range(users):
        record = outbound(
            USER_GENERATE_READING_REPORT,
            uuid_of(number),
            User(uuid=uuid_of(number)),
            correlation_id=correlation.begin("ReportController", run),
            event_id=derived_id(run, number),
            headers=[(USER_EMAIL, email_of(number).encode())],
        )
        records += [record] * (2 if number % 8 == 0 else 1)
    return records


class Reports:
    """The files, as any reader finds them at any time."""

    def __init__(self, shop: Faulty) -> None:
        self._shop = shop
        self.directory = shop.data / "reports"

    def there(self) -> int:
        return sum(1 for _ in self.directory.glob("??/*.html"))

    def files(self, number: int | None = None) -> set[Path]:
        """Both of a user, or all."""
        if number is None:
            return set(self.directory.glob("??/*"))
        path = self.directory / uuid_of(number)[:2] / uuid_of(number)
        return {path.with_suffix(".txt"), path.with_suffix(".html")}

    def written(self, run: str) -> int:
        """As the API counts them."""
        count: int = self._shop.client.get(f"/reports/{run}").json()["written"]
        return count

    def looked_at(self) -> int:
        """How many requests the group has behind it."""
        query = "SELECT sum(next_offset) FROM position WHERE consumer_group = 'reports'"
        return self._number(query)

    def orders(self) -> int:
        """How many approved orders it knows."""
        return self._number("SELECT count(*) FROM customer_order WHERE decision = 'approved'")

    def _number(self, query: str) -> int:
        return self._shop.number("reports", query)

    def check(self, number: int) -> bool:
        """Whether a user has a report. Both files are whole, and are this user's."""
        page, text = sorted(self.files(number))
        if not page.exists():
            return False
        parts = TEXT.match(text.read_text())
        assert parts is not None, f"{text} is not whole"
        whole = page.read_text()
        assert whole.endswith("</html>\n"), f"{page} is not whole"
        expected = (uuid_of(number), email_of(number), f"{Decimal(number) / 100:.2f}")
        assert parts.groups() == expected
        assert all(part in whole for part in expected)
        return True

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Somebody reads reports all the time, and never finds half of one."""
        stop, failures = threading.Event(), list[BaseException]()

        def read() -> None:
            try:
                while not stop.wait(0.002):  # leave the processors to the others
                    self.check(random.randrange(USERS))
            except BaseException as error:
                failures.append(error)

        reading = threading.Thread(target=read)
        reading.start()
        try:
            yield
        finally:
            stop.set()
            reading.join()
        assert not failures, failures

    def in_hand(self) -> list[Path]:
        """Files that are neither reports nor locks."""
        files = (path for path in self.directory.rglob("*") if path.is_file())
        return [path for path in files if path.parent.name != path.name[:2] and path.name != "lock"]


def test_reports_killed_in_the_middle_are_whole_and_counted_once(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KAFKA__MAX_POLL_RECORDS", "20")  # many batches, many moments
    with faulty(tmp_path) as shop, KafkaTemplate(shop.kafka) as template:
        reports = Reports(shop)
        keeping = shop.start("listen", "--group", "reports-orders")
        have_ordered(template)
        eventually(lambda: reports.orders() == USERS, "the orders", PATIENCE_S)
        run = shop.client.post("/reports").json()["id"]
        asked = requests(run, USERS)
        for record in asked:
            template.publish(record, lambda *_: None)
        assert template.flush(30) == 0

        with reports.watched():
            for _ in range(KILLS):
                writing = shop.start("listen", "--group", "reports", "--instance", "only")
                count = reports.there() + shop.moments.randrange(1, USERS // (KILLS + 2))
                eventually(lambda at=count: reports.there() >= at, f"{count} reports", PATIENCE_S)
                assert reports.written(run) < USERS, "the kill comes in the middle"
                shop.kill(writing)
            writing = shop.start("listen", "--group", "reports", "--instance", "only")
            eventually(lambda: reports.written(run) >= USERS, "all reports", PATIENCE_S)

            again = shop.client.post("/reports").json()["id"]
            before = {path: path.stat().st_mtime_ns for path in reports.files()}
            asked_again = requests(again, AGAIN)
            for record in asked_again:
                template.publish(record, lambda *_: None)
            behind = len(asked) + len(asked_again)
            eventually(lambda: reports.looked_at() == behind, "all reports again", PATIENCE_S)

        assert (reports.written(run), reports.written(again)) == (USERS, AGAIN)
        assert all(reports.check(number) for number in range(USERS))
        assert reports.there() == USERS
        assert len(before) == 2 * USERS
        newer = {path for path, time in before.items() if path.stat().st_mtime_ns > time}
        assert newer == {path for number in range(AGAIN) for path in reports.files(number)}
        assert reports.in_hand() == []
        assert keeping.poll() is None
        assert writing.poll() is None
