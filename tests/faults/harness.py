"""A shop of real processes that are killed, and the count of what is left afterwards."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import Producer

from shop.broker import EmbeddedKafka, free_port
from shop.child import READY_FD
from shop.databases import Databases
from shop.email.maildir import mails
from shop.kafka.admin import create_topics, describe_topics
from shop.kafka.connection import Connection
from shop.kafka.errors import KafkaError
from shop.kafka.wire import EVENT_ID
from shop.settings import Kafka, Settings
from shop.topics import ALL, NEW_ORDER, ORDER_APPROVED, ORDER_REJECTED, SEND_EMAIL
from shop.verify import audit as verify
from tests.backends import rows
from tests.reading import read_all
from tests.waiting import eventually

PATIENCE_S = 120.0
# Those on an order's way.
GROUPS = [
    word
    for group in ("fraud", "email-new-order", "email", "users", "orders")
    for word in ("--group", group)
]


@dataclass
class Faulty:
    """A broker or a cluster, `shop serve` and any number of `shop listen`, on a data folder of
    their own."""

    data: Path
    seed: int
    nodes: int = 1
    at_once: int = 8  # clients that post
    database_goes_away: bool = False  # then a client is told 503, and sends the same again
    kills: int = 0
    accepted: dict[str, str] = field(default_factory=dict)  # order id -> e-mail

    def __post_init__(self) -> None:
        self.moments = random.Random(self.seed)  # of the kills
        self._orders = random.Random(self.seed + 1)  # drawn from by another thread
        self.http = free_port()
        self.broker = EmbeddedKafka(
            self.data / "kafka", port=free_port(self.nodes), nodes=self.nodes, fast=True
        )
        self.broker.start()
        self.kafka = Connection(self.broker.bootstrap_servers)
        self.told = self.broker.bootstrap_servers  # to processes that start from now on
        create_topics(self.kafka, ALL)
        self.databases = Databases(Settings(data_dir=self.data))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._resend: list[dict[str, str]] = []
        self._mail_ids: dict[str, str] = {}  # by file
        self._log = (self.data / "processes.log").open("ab")
        self.serve = self.start("serve")
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.http}", timeout=60)
        eventually(self.up, "the API", PATIENCE_S)

    def start(self, *command: str, says_ready: int | None = None) -> subprocess.Popen[bytes]:
        """`shop COMMAND` as a process of its own, which says on a pipe when it is ready."""
        process = subprocess.Popen(
            [sys.executable, "-m", "shop.cli", *command],
            env=os.environ
            | {
                "SHOP_DATA_DIR": str(self.data),
                "SHOP_HTTP__PORT": str(self.http),
                "SHOP_KAFKA__BOOTSTRAP_SERVERS": self.told,
                "SHOP_KAFKA__SESSION_TIMEOUT_MS": "6000",
            }
            | ({} if says_ready is None else {READY_FD: str(says_ready)}),
            pass_fds=[] if says_ready is None else [says_ready],
            stdout=self._log,
            stderr=self._log,
        )
        self._processes.append(process)
        return process

    def listen(self, instance: str | None = None) -> subprocess.Popen[bytes]:
        return self.start("listen", *GROUPS, *(["--instance", instance] if instance else []))

    def listen_and_join(self) -> subprocess.Popen[bytes]:
        """One that has taken part in a rebalance of every group when this returns."""
        ready, says_ready = os.pipe()
        process = self.start("listen", *GROUPS, says_ready=says_ready)
        os.close(says_ready)
        with os.fdopen(ready, "rb") as pipe:
            assert pipe.readline() == b"ready\n", "it died before it was ready"
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        assert process.poll() is None, "it died by itself: see processes.log"
        process.kill()
        process.wait()
        self.kills += 1

    def post(self, count: int) -> None:
        """Orders of 200 customers, one in four posted twice, one in eight sent again as the Java
        API does: the same order under a new correlation id and without headers."""
        earlier, self._resend = self._resend, self.post_to_api_only(count)
        self._send_as_java(earlier)  # of the call before, so that they were probably handled

    def post_to_api_only(self, count: int) -> list[dict[str, str]]:
        """Needs no broker; gives back every eighth order. Several customers post at once, each of
        them an order at a time."""
        resent = []
        orders = deque(self._draw() for _ in range(count))
        with ThreadPoolExecutor(self.at_once) as clients:
            while together := self._of_different_customers(orders):
                first = len(self.accepted)
                times = [1 if (first + number) % 4 else 2 for number in range(len(together))]
                list(clients.map(self._post_until_answered, together, times))
                for order in together:
                    if len(self.accepted) % 8 == 0:
                        resent.append(order)
                    self.accepted[order["id"]] = order["email"]
        return resent

    def _of_different_customers(self, orders: deque[dict[str, str]]) -> list[dict[str, str]]:
        """The next orders, taken out, at most `at_once`."""
        taken: dict[str, dict[str, str]] = {}
        while orders and len(taken) < self.at_once and orders[0]["email"] not in taken:
            order = orders.popleft()
            taken[order["email"]] = order
        return list(taken.values())

    def _draw(self) -> dict[str, str]:
        email = f"customer{self._orders.randrange(200)}@example.com"
        amount = f"{self._orders.randrange(100, 500_100) / 100:.2f}"
        return {"id": self._uuid(), "email": email, "amount": amount}

    def _post_until_answered(self, order: dict[str, str], times: int) -> None:
        """As a client does that got no answer: the same again, when the API is back."""
        while times:
            try:
                answer = self.client.post("/orders", json=order)
            except httpx.TransportError:
                eventually(self.up, "the API again", PATIENCE_S)
                continue
            if answer.status_code == 503 and self.database_goes_away:
                eventually(self.ready, "the database again", PATIENCE_S)
                continue
            assert answer.status_code == 202, answer.text
            times -= 1

    def _send_as_java(self, orders: Sequence[dict[str, str]]) -> None:
        producer = Producer(
            {"bootstrap.servers": self.kafka.bootstrap_servers, "partitioner": "murmur2_random"}
        )
        for order in orders:
            value = json.dumps(
                {
                    "type": "br.com.alura.ecommerce.Order",
                    "payload": {
                        "orderId": order["id"],
                        "amount": float(order["amount"]),
                        "email": order["email"],
                    },
                    "correlationId": {"id": f"Java({self._uuid()})"},
                }
            )
            producer.produce(NEW_ORDER.name, value, order["email"])
        assert producer.flush(60) == 0

    def decided(self) -> int:
        """How many orders the fraud service has decided on."""
        return self.number("fraud", "SELECT count(*) FROM decision")

    def settle(self) -> None:
        """Wait until every accepted order went its whole way, and every record was looked at."""
        eventually(lambda: self.decided() == len(self.accepted), "all decisions", PATIENCE_S)
        self._send_as_java(self._resend)  # all of these are repeats for certain
        self._resend = []
        eventually(lambda: not any(self._unfinished()), "all orders through", PATIENCE_S)

    def _unfinished(self) -> Iterator[str]:
        """What is still on its way."""
        count, decided = len(self.accepted), self.decided()
        if decided != count:
            yield f"{decided} decisions for {count} orders"
        if waiting := self.number(
            "orders", "SELECT count(*) FROM orders WHERE status = 'accepted'"
        ):
            yield f"{waiting} orders without a result"
        if (mailed := len(self._mailed())) < count:
            yield f"{mailed} mails for {count} orders"
        for name in DATABASES:
            if self.rows(name, "SELECT 1 FROM outbox LIMIT 1"):
                yield f"the outbox of {name} is not empty"
        for service, group in READERS_OF_NEW_ORDER:
            if not self.has_read_all(service, group):
                yield f"{group} is at {self._position(service, group)} of {self._end()}"

    def _mailed(self) -> set[str]:
        """The ids of all mails. Asked for often, so each is read once."""
        for path in (self.data / "mail/new").glob("[!.]*"):
            if path.name not in self._mail_ids:
                self._mail_ids[path.name] = message_from_bytes(path.read_bytes())["Message-ID"]
        return set(self._mail_ids.values())

    def has_read_all(self, service: str, group: str) -> bool:
        """Whether a group has looked at every record of NEW_ORDER."""
        return self._position(service, group) == self._end()

    def members(self, group: str) -> int:
        """How many members the broker counts in a group."""
        admin = self.kafka.admin()
        found = admin.describe_consumer_groups([group], request_timeout=60)[group].result(60)
        return len(found.members)

    def _position(self, service: str, group: str) -> int:
        """How many records of NEW_ORDER a group has looked at."""
        query = (
            "SELECT sum(next_offset) FROM position "
            f"WHERE consumer_group = '{group}' AND topic = '{NEW_ORDER}'"
        )
        return self.number(service, query)

    def _end(self) -> int | None:
        """How many records NEW_ORDER has; None while a broker that came back has not said."""
        try:
            (state,) = describe_topics(self.kafka, [NEW_ORDER.name])
        except KafkaError:
            return None
        return sum(partition.high for partition in state.partitions)

    def explain(self) -> None:
        """Print what whoever reads of a failure needs to know."""
        print(f"{len(self.accepted)} accepted;", *self._unfinished(), sep="\n")
        print(*[f"{process.args}: {process.poll()}" for process in self._processes], sep="\n")
        print(*self.said().splitlines()[-80:], sep="\n")

    def said(self) -> str:
        """What the processes have logged."""
        return (self.data / "processes.log").read_text(errors="replace")

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.client.close()
        self.databases.close()
        self.broker.stop()
        self._log.close()

    # --- the count --------------------------------------------------------------------------------

    def audit(self) -> None:
        """By reading topics, databases and mail, and by `shop verify`: nothing lost, nothing done
        twice."""
        orders = set(self.accepted)
        new = self._read(NEW_ORDER)
        by_order = Counter(event.order_id for event, _, _ in new)
        assert set(by_order) == orders, "every accepted order is on the topic, and no other"

        decisions = defaultdict(set)
        for topic in (ORDER_APPROVED, ORDER_REJECTED):
            for event, event_id, _ in self._read(topic):
                decisions[event.order_id].add((topic.name, event_id))
        assert set(decisions) == orders, "every order is decided"
        assert {len(found) for found in decisions.values()} == {1}, "under one event id"
        self._audit_order_per_key(new)
        rows = self.rows("fraud", "SELECT order_id, amount, is_fraud FROM decision")
        assert {row[0] for row in rows} == orders
        for order_id, amount, fraud in rows:
            ((topic_name, _),) = decisions[order_id]
            assert topic_name == (ORDER_REJECTED if fraud else ORDER_APPROVED).name
            assert bool(fraud) == (float(amount) >= 4500)
        status = dict(self.rows("orders", "SELECT id, status FROM orders"))
        assert set(status) == orders
        assert set(status.values()) <= {"approved", "rejected"}

        emails = [row[0] for row in self.rows("users", "SELECT email FROM users")]
        assert sorted(emails) == sorted(set(self.accepted.values())), "one user per e-mail"

        asked = {event_id for _, event_id, _ in self._read(SEND_EMAIL)}
        assert len(asked) == len(orders), "one mail is asked for per order"
        found = list(mails(self.data / "mail"))
        assert len({mail.message_id for mail in found}) == len(orders), "one mail per order"
        receipts = self.rows("users", "SELECT count(*) FROM receipt")
        assert receipts == [(len(orders),)], "each order is looked at once, under its id"
        sent_to = Counter({mail.message_id: mail.to for mail in found}.values())
        assert sent_to == Counter(self.accepted.values())

        for name in DATABASES:
            assert self.rows(name, "SELECT count(*) FROM outbox") == [(0,)], f"{name}: unpublished"
        kafka = Kafka(bootstrap_servers=self.broker.bootstrap_servers)
        report = verify(Settings(data_dir=self.data, kafka=kafka))
        assert report.clean, report.findings

    def _audit_order_per_key(self, new: list[tuple[Any, str, str]]) -> None:
        """A customer's orders are published as they were accepted, and decided as published."""
        accepted, published, first = defaultdict(list), defaultdict(list), defaultdict(list)
        for order_id, email in self.accepted.items():
            accepted[email].append(order_id)
        for event, _, correlation_id in new:
            if event.order_id not in first[event.email]:
                first[event.email].append(event.order_id)
            ours = not correlation_id.startswith("Java")
            if ours and event.order_id not in published[event.email]:
                published[event.email].append(event.order_id)
        assert published == accepted, "published in the order of acceptance"
        for topic in (ORDER_APPROVED, ORDER_REJECTED):
            decided = defaultdict(list)
            for event, _, _ in self._read(topic):
                if event.order_id not in decided[event.email]:
                    decided[event.email].append(event.order_id)
            for email, orders in decided.items():
                expected = [order for order in first[email] if order in set(orders)]
                assert orders == expected, f"{topic}: decided in the order of publication"

    def _read(self, topic: Any) -> list[tuple[Any, str, str]]:
        """(event, event id, correlation id) of every record, those of a partition in order."""
        result = []
        for record in read_all(self.kafka, topic):
            assert record.error() is None, record.error()
            event, correlation_id = topic.codec.decode(record.value())
            headers = dict(record.headers() or [])
            event_id = headers.get(EVENT_ID, b"").decode() or str(correlation_id)
            result.append((event, event_id, str(correlation_id)))
        return result

    def number(self, service: str, query: str) -> int:
        """The one that the query asks for; 0 for NULL, and while there is no table."""
        found = self.rows(service, query)
        return int(found[0][0] or 0) if found else 0

    def rows(self, service: str, query: str, **values: object) -> list[Any]:
        """What a statement finds in a service's database; nothing while that has no tables."""
        return rows(self.databases.existing(service), query, **values)

    def up(self) -> bool:
        return self._answers("/health/live")

    def ready(self) -> bool:
        return self._answers("/health/ready")

    def _answers(self, path: str) -> bool:
        try:
            return self.client.get(path).status_code == 200
        except httpx.TransportError:
            return False

    def _uuid(self) -> str:
        h = f"{self._orders.getrandbits(128):032x}"
        return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


DATABASES = ("orders", "fraud", "email", "users")
READERS_OF_NEW_ORDER = [("fraud", "fraud"), ("email", "email-new-order"), ("users", "users")]


@contextmanager
def faulty(data: Path, nodes: int = 1) -> Iterator[Faulty]:
    seed = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(2**32))
    print(f"FAULT_SEED={seed} repeats this choice of moments; data in {data}")
    shop = Faulty(data, seed, nodes)
    try:
        yield shop
    except AssertionError:
        shop.explain()
        raise
    finally:
        shop.close()
