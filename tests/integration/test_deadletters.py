"""The life of a letter on real Kafka: a group fails, somebody redrives it, the group handles it."""

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shop.containers import Shop
from shop.db.database import Database
from shop.db.relay import Relay
from shop.db.store import DatabaseStore
from shop.db.tables import outbox
from shop.db.work import Work
from shop.deadletters.destinations import Destinations
from shop.deadletters.listeners import DeadLetterKeeper
from shop.deadletters.model import LetterRow
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.dead_letter import DeadLetters
from shop.kafka.errors import ListenerFailed
from shop.kafka.letter import SPRING
from shop.kafka.listener import ListenerRegistry, listener
from shop.kafka.outbound import OutboundRecord
from shop.kafka.retry import Retry
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from shop.kafka.wire import EnvelopeCodec, Message
from shop.settings import Kafka, Settings
from shop.topics import DEADLETTER, ORDER_REJECTED
from tests import java
from tests.backends import Backend
from tests.commands import ShopPlace
from tests.integration.test_reports import an_order
from tests.reading import count, read_all
from tests.unit.deadletters.conftest import Api
from tests.waiting import eventually

TEXT = EnvelopeCodec[str]({"java.lang.String": str})
ONCE = Retry(attempts=1)

Listen = Callable[..., ListenerContainer]
MakeTopic = Callable[..., Topic[str]]


class Service(Api):
    """The group deadletter, its API and its relay."""

    def __init__(self, folder: Path, kafka: Connection, template: KafkaTemplate) -> None:
        self.topics, self.read_by = [ORDER_REJECTED.name], dict[str, list[str]]()
        super().__init__(folder, destinations=Destinations(self.read_by, self.topics))
        create_topics(kafka, [DEADLETTER, ORDER_REJECTED])
        registry = ListenerRegistry()
        registry.add(DeadLetterKeeper())
        store = DatabaseStore(self.database)
        self.relay = Relay(self.database, template)
        self.container = ListenerContainer(
            kafka,
            "deadletter",
            registry.endpoints("deadletter", store.work_type),
            store=store,
            session_timeout_ms=6000,
        )
        self.container.start()
        self.relay.start()
        self.send_redrives()

    def stop(self) -> None:
        assert self.container.stop(timeout=60)
        assert self.container.failure is None
        assert self.relay.stop(timeout=60)
        super().stop()

    def waiting(self, topic: Topic[Any] | str, letters: int = 1, failures: int = 1) -> list[Any]:
        """The letters of a topic, as soon as so many wait that have failed so often."""

        def there() -> list[Any]:
            found = self.letters(topic=str(topic), state="waiting")
            return [letter for letter in found if letter["failures"] == failures]

        eventually(lambda: len(there()) == letters, f"{letters} letters of {topic}")
        found = there()
        self.topics.append(str(topic))
        for letter in found:
            self.read_by.setdefault(letter["group"], []).append(str(topic))
        return found


@pytest.fixture(scope="module")
def service(
    kafka: Connection,
    template: KafkaTemplate,
    shared_backend: Backend,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("letters"), kafka, template)
    yield service
    service.stop()


@pytest.fixture
def database(shared_backend: Backend, tmp_path: Path) -> Iterator[Database]:
    """Of the groups, where the letters are kept too."""
    database = shared_backend.open("fraud", tmp_path)
    yield database
    database.close()


class Fallible:
    """A listener that fails as long as it is told to, and notes what it has handled."""

    def __init__(self, topic: Topic[Any], group: str) -> None:
        self.failing = True
        self.handled: Counter[str] = Counter()

        class Handler:
            @listener(topic, group=group)
            def handle(_, message: Message[Any], work: Work) -> None:
                if self.failing:
                    raise ValueError("not today")
                self.handled[message.event_id] += 1

        self.listener = Handler()


@pytest.fixture
def start(listen: Listen, kafka: Connection, database: Database) -> Iterator[Listen]:
    """start(fallible): its container, with a relay for its letters."""
    with KafkaTemplate(kafka, timeout_s=0, name="relay") as relaying:
        relay = Relay(database, relaying)
        relay.start()
        store = DatabaseStore(database)

        def started(fallible: Fallible) -> ListenerContainer:
            letters = DeadLetters(DEADLETTER.name)
            return listen(fallible.listener, store=store, retry=ONCE, dead_letters=letters)

        yield started
        relay.stop()


def records(kafka: Connection, topic: Topic[Any]) -> list[Any]:
    """In the order of the log."""
    found = [(r.offset(), r.key(), r.value(), r.headers()) for r in read_all(kafka, topic)]
    return sorted(found, key=lambda record: record[0])


def test_a_redriven_record_is_handled_once_and_only_by_the_group_that_failed(
    service: Service, template: KafkaTemplate, make_topic: MakeTopic, start: Listen, group: str
) -> None:
    topic = make_topic(TEXT)
    failed, other = Fallible(topic, group), Fallible(topic, f"other-{group}")
    other.failing = False
    start(failed)
    start(other)
    template.send(topic, "k", "first")
    (letter,) = service.waiting(topic)
    assert letter["group"] == group
    eventually(lambda: other.handled.total() == 1, "the other group")

    service.redriven(ids=[letter["id"]])
    assert service.waiting(topic, failures=2)[0]["id"] == letter["id"], "the same, failed again"
    failed.failing = False
    for again in (False, True, True):
        service.redriven(ids=[letter["id"]], again=again)
    template.send(topic, "k", "last")
    eventually(lambda: len(failed.handled) == 2, "the first and the last")
    eventually(lambda: len(other.handled) == 2, "the last")
    assert set(failed.handled.values()) == set(other.handled.values()) == {1}
    assert set(failed.handled) == set(other.handled), "the event id is kept"

    history = service.letter(letter["id"])["history"]
    happened = ["failed", "redriven", "failed", "redriven", "redriven", "redriven"]
    assert [event["what"] for event in history] == happened
    assert service.letter(letter["id"])["state"] == "redriven"


def test_the_record_is_the_same_byte_by_byte_however_often_it_is_redriven(
    service: Service, kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic,
    start: Listen, group: str,
) -> None:  # fmt: skip
    topic = make_topic(TEXT)
    noise = bytes(range(256)) * 4000
    poison: list[tuple[bytes | None, bytes | None]] = [
        (b"\xff\x00", noise),
        (b"k", b"\xff\xfe"),
        (b"k", None),
        (None, b""),
    ]
    headers: Any = [("mine", b"\xff"), ("nothing", None), ("mine", b"")]
    for key, value in poison:
        template.send_record(OutboundRecord(topic.name, key, value, headers))
    start(Fallible(topic, group))
    for failures in (1, 2):
        service.waiting(topic, len(poison), failures)
        service.redriven(topic=topic.name)
    service.waiting(topic, len(poison), failures=3)
    first, again, third = (records(kafka, topic)[n : n + 4] for n in (0, 4, 8))
    assert [(key, value) for _, key, value, _ in first] == poison
    for one in (again, third):
        assert [record[1:3] for record in one] == poison
        for *_, told in one:
            assert [(n, v) for n, v in told if n in ("mine", "nothing")] == headers
    assert [record[3] for record in again] == [record[3] for record in third], "it does not grow"


def test_a_java_letter_goes_to_all_groups_and_has_effect_only_where_it_had_none(
    service: Service, kafka: Connection, template: KafkaTemplate, start: Listen, group: str
) -> None:
    order_id = f"order-{group}"
    producer = java.JavaProducer(kafka)
    hop = f"NewOrderMain({group})-_{ORDER_REJECTED}(2)"
    value = java.envelope(java.ORDER, java.order("ana@example.com", order_id=order_id), hop)
    producer.send(ORDER_REJECTED.name, "ana@example.com", value)
    numbers = json.dumps(array("b", value).tolist())
    wrapped = java.envelope("[B", numbers, f"{hop}-DeadLetter(3)-_{DEADLETTER}(4)")
    producer.send(DEADLETTER.name, f"{hop}-DeadLetter(3)", wrapped)
    producer.flush()

    def of_this_test(fallible: Fallible) -> int:
        return fallible.handled[letter["eventId"]]

    (listed,) = eventually(lambda: service.letters(topic=ORDER_REJECTED.name), "the letter")
    letter = service.letter(listed["id"])
    assert (letter["group"], letter["key"]) == (None, "ana@example.com")
    has_handled = Fallible(ORDER_REJECTED, group)
    has_handled.failing = False
    start(has_handled)
    eventually(lambda: of_this_test(has_handled) == 1, "the record itself")
    service.redriven(ids=[letter["id"]])
    eventually(lambda: len(records_of(kafka, value)) == 2, "the record again")
    at_first, again = records_of(kafka, value)
    assert (again.key(), again.value()) == (at_first.key(), at_first.value())
    assert again.partition() == at_first.partition()
    template.send(ORDER_REJECTED, "ana@example.com", an_order("ana@example.com"))
    eventually(lambda: len(has_handled.handled) >= 2, "what comes behind it")
    assert of_this_test(has_handled) == 1


def records_of(kafka: Connection, value: bytes) -> list[Any]:
    return [record for record in read_all(kafka, ORDER_REJECTED) if record.value() == value]


def test_a_spring_letter_is_redriven_to_its_topic_and_group(
    service: Service, kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, group: str
) -> None:
    topic = make_topic(TEXT)
    value = java.envelope(java.TEXT, '"a text, whose envelope is no letter"', "M(1)")
    added = {
        "original-topic": topic.name.encode(),
        "original-partition": (0).to_bytes(4, "big"),
        "original-offset": (3).to_bytes(8, "big"),
        "original-consumer-group": group.encode(),
    }
    told = [("__TypeId__", b"T"), *((SPRING + name, text) for name, text in added.items())]
    template.send_record(OutboundRecord(DEADLETTER.name, "k", value, told))
    (letter,) = service.waiting(topic)
    service.redriven(ids=[letter["id"]])
    ((_, key, redriven, headers),) = eventually(lambda: records(kafka, topic), "the record")
    assert (key, redriven) == (b"k", value)
    assert dict(headers)["redrive-to"] == group.encode()
    assert dict(headers)["__TypeId__"] == b"T"


def test_letters_that_cannot_be_kept_stop_the_group_and_become_no_letters(
    shop_place: ShopPlace, backend: Backend, tmp_path: Path
) -> None:
    servers = shop_place.kafka.bootstrap_servers
    kafka = Kafka(bootstrap_servers=servers, session_timeout_ms=6000)
    shop = Shop(settings=Settings(data_dir=tmp_path, kafka=kafka))
    with shop.databases().of("deadletters").write() as connection:
        connection.exec_driver_sql("ALTER TABLE letter_event RENAME TO gone")
    with KafkaTemplate(shop_place.kafka) as template:
        template.send_record(OutboundRecord(DEADLETTER.name, "k", b"v", []))
    failures: list[BaseException] = []
    container = shop.listener_container(
        group="deadletter", instance=None, on_failure=lambda _, error: failures.append(error)
    )
    container.start()
    eventually(lambda: failures, "the group to stop")
    assert isinstance(failures[0], ListenerFailed)
    assert container.stop(timeout=60)
    assert count(shop.databases().of("deadletters"), LetterRow.__table__) == 0
    assert count(shop.databases().of("deadletters"), outbox) == 0
    shop.databases().close()
