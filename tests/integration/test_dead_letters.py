"""Records that cannot be handled: tried again, made dead letters of, held back, redriven."""

import json
import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy import text as sql

from shop.db.database import Database
from shop.db.relay import Relay
from shop.db.store import DatabaseStore
from shop.db.tables import held_key, outbox
from shop.db.work import Work
from shop.fraud.model import Decision
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.dead_letter import LARGEST_ON_TOPIC, DeadLetters
from shop.kafka.errors import (
    ListenerDeclarationError,
    ListenerFailed,
    StoreUnavailable,
    TopicMissing,
    Unavailable,
)
from shop.kafka.letter import DeadLetterCodec, Letter, Unwrapped, opened, redriven
from shop.kafka.listener import every_record, listener
from shop.kafka.outbound import OutboundRecord
from shop.kafka.retry import Backoff, Retry
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from shop.kafka.wire import EVENT_ID, REDRIVE_TO, EnvelopeCodec, Message, received_ids
from tests.backends import Backend, stranger
from tests.reading import count, read_all
from tests.waiting import eventually

TEXT = EnvelopeCodec[str]({"java.lang.String": str})
SOON = Backoff(first=0.02, longest=0.05)

Listen = Callable[..., ListenerContainer]
MakeTopic = Callable[..., Topic[str]]


@pytest.fixture
def letters_topic(kafka: Connection, group: str) -> Topic[Unwrapped]:
    topic: Topic[Unwrapped] = Topic(
        f"letters-{group}",
        DeadLetterCodec(),
        partitions=1,
        config={"max.message.bytes": str(LARGEST_ON_TOPIC)},
    )
    create_topics(kafka, [topic])
    return topic


@pytest.fixture
def relay(kafka: Connection, database: Database) -> Iterator[Relay]:
    with KafkaTemplate(kafka, timeout_s=0, name="relay") as template:
        relay = Relay(database, template)
        relay.start()
        yield relay
        relay.stop()


@pytest.fixture
def start(
    listen: Listen, store: DatabaseStore, letters_topic: Topic[Unwrapped], relay: Relay
) -> Listen:
    """start(listener, …): a container with a store and a place for dead letters."""

    def started(service: Any, **options: Any) -> ListenerContainer:
        options.setdefault("retry", Retry(attempts=3, backoff=SOON))
        return listen(service, store=store, dead_letters=DeadLetters(letters_topic.name), **options)

    return started


def put(
    template: KafkaTemplate, topic: Topic[Any], key: bytes | None, value: bytes | None,
    headers: Any = (),
) -> None:  # fmt: skip
    template.send_record(OutboundRecord(topic.name, key, value, list(headers)))  # type: ignore[arg-type]


def read_letters(kafka: Connection, topic: Topic[Unwrapped]) -> list[Letter]:
    return [opened(as_message(record)) for record in read_all(kafka, topic)]


def as_message(record: Any) -> Message[Unwrapped]:
    event, correlation_id = DeadLetterCodec().decode(record.value())
    headers = record.headers() or []
    event_id, correlation_id, traceparent, _ = received_ids(
        headers, correlation_id, record.topic(), record.partition(), record.offset()
    )
    return Message(
        event, None, record.topic(), record.partition(), record.offset(), record.timestamp()[1],
        event_id, correlation_id, traceparent, headers, record.key(),
    )  # fmt: skip


def envelope(payload: object, type_: str = "java.lang.String") -> bytes:
    return json.dumps(
        {"type": type_, "payload": payload, "correlationId": {"id": "Test(1)-_T(2)"}}
    ).encode()


POISON: list[tuple[bytes | None, bytes | None]] = [
    (b"k", b"not JSON"),
    (b"k", b"[1, 2]"),
    (b"k", envelope({"a": 1})),
    (b"k", envelope("a", "java.util.Nothing")),
    (b"k", b'{"type":"java.lang.String","payload":"\xff\xfe"}'),
    (b"k", b'{"type":"java.lang.String","payload":' + b"[" * 100_000),
    (b"k", os.urandom(1_000_000)),
    (b"k", b"\x01" * 1_000_000),  # as JSON six times as long
    (b"k", None),
    (b"k", b""),
    (None, b"no key"),
    (b"\xff\x00k", b"no text"),
]


def test_what_cannot_be_decoded_becomes_a_letter_from_which_it_comes_back(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, start: Listen, group: str,
    letters_topic: Topic[Unwrapped], database: Database,
) -> None:  # fmt: skip
    topic = make_topic(TEXT)
    headers = [("origin", b"a"), ("origin", b"\xff"), ("empty", None), (EVENT_ID, b"e-1")]
    for key, value in POISON:
        put(template, topic, key, value, headers if value == b"not JSON" else ())
        template.send(topic, "k", "good")
    seen: list[str] = []

    @listener(topic, group=group)
    def on(text: str, work: Work) -> None:
        seen.append(text)

    start(on)
    letters = eventually(
        lambda: found if len(found := read_letters(kafka, letters_topic)) == len(POISON) else None
    )
    assert [(letter.key, letter.value) for letter in letters] == POISON
    eventually(lambda: len(seen) >= len(POISON))
    assert letters[0].headers == headers
    places = [(letter.topic, letter.partition, letter.offset) for letter in letters]
    assert places == [(topic.name, 0, 2 * number) for number in range(len(POISON))]
    assert {letter.group for letter in letters} == {group}
    assert {letter.exception for letter in letters} == {"shop.kafka.errors.WireError"}
    assert {letter.attempts for letter in letters} == {1}
    assert len({letter.id for letter in letters}) == len(POISON)
    eventually(lambda: count(database, outbox) == 0)


def test_a_letter_is_an_envelope_that_other_services_read(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, start: Listen, group: str,
    letters_topic: Topic[Unwrapped],
) -> None:  # fmt: skip
    topic = make_topic(TEXT)
    put(template, topic, b"k", envelope({"not": "a text"}))
    put(template, topic, b"k", b"\x00\x7f\x80\xff")

    @listener(topic, group=group)
    def on(text: str) -> None:
        raise AssertionError(text)

    start(on)
    as_text, as_bytes = eventually(
        lambda: found if len(found := read_all(kafka, letters_topic)) == 2 else None
    )
    read = json.loads(as_text.value())
    assert list(read) == ["type", "payload", "correlationId"]
    assert (read["type"], read["payload"]) == (
        "java.lang.String",
        envelope({"not": "a text"}).decode(),
    )
    way = read["correlationId"]["id"]
    assert way.startswith("Test(1)-_T(2)-DeadLetter(")
    assert f")-_{letters_topic.name}(" in way
    read = json.loads(as_bytes.value())
    assert (read["type"], read["payload"]) == ("[B", [0, 127, -128, -1])
    told = dict(as_text.headers())
    assert told["kafka_dlt-original-topic"] == topic.name.encode()
    assert struct.unpack(">i", told["kafka_dlt-original-partition"]) == (0,)
    assert struct.unpack(">q", told["kafka_dlt-original-offset"]) == (0,)
    assert struct.unpack(">q", told["kafka_dlt-original-timestamp"])[0] == topic_time(kafka, topic)
    assert told["kafka_dlt-original-timestamp-type"] == b"CreateTime"
    assert told["kafka_dlt-original-consumer-group"] == group.encode()
    assert told["kafka_dlt-exception-fqcn"] == b"shop.kafka.errors.WireError"
    assert b"cannot be read" in told["kafka_dlt-exception-message"]
    assert b"Traceback" in told["kafka_dlt-exception-stacktrace"]


def topic_time(kafka: Connection, topic: Topic[str]) -> int:
    time: int = read_all(kafka, topic)[0].timestamp()[1]
    return time


def test_a_record_that_always_fails_is_tried_as_often_as_said_and_others_go_on(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, start: Listen, group: str,
    letters_topic: Topic[Unwrapped], database: Database,
) -> None:  # fmt: skip
    topic = make_topic(TEXT, partitions=3)
    texts = [*(str(n) for n in range(300)), "bad 1", *(str(n) for n in range(300, 600)), "bad 2"]
    for text in texts:
        template.send_async(topic, text, text)
    assert template.flush(60) == 0
    calls: Counter[str] = Counter()

    @listener(topic, group=group)
    def on(text: str, work: Work, ack: Acknowledgment) -> None:
        calls[text] += 1
        if text.startswith("bad"):
            raise ValueError("x" * 100_000) from KeyError("why")
        work.add(Decision, order_id=text, amount=Decimal(1), is_fraud=False)
        ack.acknowledge()

    start(on)
    eventually(lambda: count(database, Decision) == 600)
    letters = eventually(
        lambda: found if len(found := read_letters(kafka, letters_topic)) == 2 else None
    )
    assert {calls["bad 1"], calls["bad 2"]} == {3}, "as often as said"
    assert {letter.attempts for letter in letters} == {3}
    assert {letter.exception for letter in letters} == {"builtins.ValueError"}
    assert all(len(letter.message or "") <= 1000 for letter in letters)
    assert all(len(letter.stacktrace or "") <= 8000 for letter in letters)


def test_a_record_that_fails_sometimes_is_handled_in_the_end_and_in_order(
    template: KafkaTemplate, make_topic: MakeTopic, start: Listen, group: str,
    letters_topic: Topic[Unwrapped], kafka: Connection,
) -> None:  # fmt: skip
    topic = make_topic(TEXT)
    for number in range(20):
        template.send(topic, "k", str(number))
    done: list[str] = []
    failures = Counter({"7": 2, "8": 1, "19": 2})

    @listener(topic, group=group)
    def on(text: str, work: Work) -> None:
        if failures[text]:
            failures[text] -= 1
            raise OSError("a bad moment")
        done.append(text)

    start(on)
    eventually(lambda: "19" in done)
    assert list(dict.fromkeys(done)) == [str(number) for number in range(20)]
    assert read_all(kafka, letters_topic) == []


def test_a_record_may_wait_longer_than_any_timeout_and_its_consumer_stays_in_the_group(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, start: Listen, group: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    topic = make_topic(TEXT, partitions=2)
    calls: Counter[str] = Counter()

    @listener(topic, group=group, retry=Retry(backoff=Backoff(first=9, longest=9)))
    def on(text: str) -> None:
        calls[text] += 1
        if text == "bad" and calls[text] == 1:
            raise ValueError(text)

    start(on, max_poll_interval_ms=6000, session_timeout_ms=6000)
    template.send(topic, "a", "bad")
    eventually(lambda: calls["bad"])
    before = member_ids(kafka, group)
    sent: list[str] = []

    def second_attempt() -> bool:
        for key in "abc":  # of either partition
            sent.append(f"{key}{len(sent)}")
            template.send(topic, key, sent[-1])
        return calls["bad"] == 2

    eventually(second_attempt)
    assert sum(calls[text] for text in sent) > len(sent) / 10, "the other partition went on"
    eventually(lambda: all(calls[text] == 1 for text in sent))
    assert member_ids(kafka, group) == before
    told = [r.getMessage() for r in caplog.records if group in r.getMessage()]
    assert len([line for line in told if "again in" in line]) == 1, "one line per attempt"


def member_ids(kafka: Connection, group: str) -> list[str]:
    admin = kafka.admin()
    found = admin.describe_consumer_groups([group], request_timeout=60)[group].result(60)
    return [member.member_id for member in found.members]


def test_what_is_not_worth_it_is_not_tried_again(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, start: Listen, group: str,
    letters_topic: Topic[Unwrapped],
) -> None:  # fmt: skip
    topic = make_topic(TEXT)
    template.send(topic, "k", "a")
    calls: list[str] = []

    @listener(topic, group=group, retry=Retry(attempts=100, not_worth=(LookupError,)))
    def on(text: str) -> None:
        calls.append(text)
        raise KeyError(text)

    start(on)
    eventually(lambda: read_all(kafka, letters_topic))
    assert calls == ["a"]


def test_what_is_away_is_waited_for_without_counting_and_readiness_says_why(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, start: Listen, group: str,
    letters_topic: Topic[Unwrapped],
) -> None:  # fmt: skip
    topic = make_topic(TEXT, partitions=2)
    away = True
    calls: list[str] = []

    @listener(topic, group=group, retry=Retry(attempts=1), external=True)
    def on(text: str) -> None:
        calls.append(text)
        if away:
            raise Unavailable("the warehouse is away")

    container = start(on)
    template.send(topic, "k", "a")
    eventually(lambda: len(calls) >= 3)
    assert container.trouble == "the warehouse is away"
    away = False
    eventually(lambda: container.trouble is None)
    assert read_all(kafka, letters_topic) == []


def test_what_is_done_outside_is_not_done_again_while_the_database_is_away(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    letters_topic: Topic[Unwrapped], database: Database,
) -> None:  # fmt: skip
    topic = make_topic(TEXT)
    calls: list[str] = []

    class Faltering(DatabaseStore):
        asked = 0

        @contextmanager
        def transaction(self, *arguments: Any) -> Any:
            self.asked += 1
            if self.asked <= 3:
                raise StoreUnavailable("the database takes no writes")
            with super().transaction(*arguments) as batch:
                yield batch

    store = Faltering(database)

    @listener(topic, group=group, external=True, retry=Retry(attempts=1))
    def on(text: str) -> None:
        calls.append(text)
        if text == "b" and calls.count("b") < 4:
            raise StoreUnavailable("what it reads of the database is away")

    listen(on, store=store, dead_letters=DeadLetters(letters_topic.name))
    template.send(topic, "k", "a")
    template.send(topic, "k", "b")
    eventually(lambda: store.asked == 5)
    assert calls == ["a", "b", "b", "b", "b"]
    assert read_all(kafka, letters_topic) == []


@contextmanager
def no_room(database: Database, backend: Backend) -> Iterator[None]:
    """A disk that is full, for the block. PostgreSQL has no quota to fill: there it is what those
    who run it for others do then, a database that can only be read."""
    if backend.postgres is not None:
        backend.postgres.only_to_be_read(True)
        yield
        backend.postgres.only_to_be_read(False)
        return
    with database.read() as connection:
        pages = connection.scalar(sql("PRAGMA page_count")) + 20

    @event.listens_for(database.engine, "before_cursor_execute")
    def a_small_disk(connection: Any, *_: Any) -> None:
        connection.connection.driver_connection.execute(f"PRAGMA max_page_count = {pages}")

    yield
    pages = 1_000_000


def test_a_full_or_locked_database_is_no_records_fault(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, start: Listen, group: str,
    letters_topic: Topic[Unwrapped], database: Database, backend: Backend,
) -> None:  # fmt: skip
    topic = make_topic(TEXT)

    @listener(topic, group=group, retry=Retry(attempts=1))
    def on(text: str, work: Work) -> None:
        work.add(Decision, order_id=text, amount=Decimal(1), is_fraud=False)

    container = start(on)
    texts = {f"{number}-{'x' * 1000}" for number in range(300)}
    with no_room(database, backend):
        for number in texts:
            template.send_async(topic, number[:9], number)
        assert template.flush(60) == 0
        eventually(lambda: re.search("full|read-only", container.trouble or ""))
    eventually(lambda: count(database, Decision) == 300)
    eventually(lambda: container.trouble is None)

    with stranger(database):
        template.send(topic, "k", "later")
        eventually(lambda: "lock" in (container.trouble or ""), patience=60)
    eventually(lambda: count(database, Decision) == 301)
    with database.read() as connection:
        assert set(connection.scalars(select(Decision.order_id))) == {*texts, "later"}
    assert read_all(kafka, letters_topic) == []


def test_later_records_of_a_key_wait_behind_the_failed_one_and_come_back_in_order(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, start: Listen, group: str,
    letters_topic: Topic[Unwrapped], database: Database,
) -> None:  # fmt: skip
    topic = make_topic(TEXT)
    for text in ("a1", "b1", "a2", "b2", "a3", "none"):
        template.send(topic, text[0] if text != "none" else None, text)
    done: list[str] = []
    broken = True

    @listener(topic, group=group, hold_back=True, retry=Retry(attempts=1))
    def on(text: str) -> None:
        if text == "a1" and broken:
            raise ValueError(text)
        done.append(text)

    start(on)
    letters = eventually(
        lambda: found if len(found := read_letters(kafka, letters_topic)) == 3 else None
    )
    eventually(lambda: set(done) == {"b1", "b2", "none"})
    assert [letter.exception for letter in letters] == [
        "builtins.ValueError", "shop.kafka.errors.HeldBack", "shop.kafka.errors.HeldBack",
    ]  # fmt: skip
    # Out of its turn, and then all in order while the first still fails: none passes another.
    again = [redriven(letter, topic.name, group) for letter in letters]
    for record in (again[1], *again):
        template.send_record(record)
    back = eventually(
        lambda: found if len(found := read_letters(kafka, letters_topic)) == 7 else None
    )
    assert {letter.id for letter in back} == {letter.id for letter in letters}, "the same letters"
    assert count(database, held_key) == 3
    broken = False
    for record in again:
        template.send_record(record)
    template.send(topic, "a", "a4")
    eventually(lambda: done[-1] == "a4")
    assert [text for text in done if text[0] == "a"] == ["a1", "a2", "a3", "a4"]
    assert count(database, held_key) == 0


def test_a_redriven_record_is_for_the_group_that_failed_and_counts_once(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, start: Listen, group: str,
    letters_topic: Topic[Unwrapped], database: Database,
) -> None:  # fmt: skip
    topic = make_topic(TEXT)
    seen: list[tuple[str, str]] = []
    broken = True

    @listener(topic, group=f"{group}-fails")
    def fails(text: str, work: Work) -> None:
        if text == "a" and broken:
            raise ValueError(text)
        seen.append(("fails", text))
        work.add(Decision, order_id=text, amount=Decimal(1), is_fraud=False)

    @listener(topic, group=f"{group}-other")
    def other(text: str) -> None:
        seen.append(("other", text))

    @listener(topic, group=f"{group}-observer", once=every_record, observer=True)
    def observer(message: Message[str]) -> None:
        if message.header(REDRIVE_TO):
            seen.append(("observer", message.event))

    for service in (fails, other, observer):
        start(service)
    template.send(topic, "k", "a")
    (letter,) = eventually(lambda: read_letters(kafka, letters_topic))
    broken = False
    for _ in range(2):  # a redrive done twice
        template.send_record(redriven(letter, topic.name, f"{group}-fails"))
    template.send(topic, "k", "last")
    eventually(lambda: {("fails", "last"), ("other", "last")} <= set(seen))
    eventually(lambda: Counter(seen)["observer", "a"] == 2)
    assert Counter(seen)["fails", "a"] == 1
    assert Counter(seen)["other", "a"] == 1
    eventually(lambda: count(database, Decision) == 2)  # the transaction ends after the call


def test_a_letter_that_cannot_be_written_stops_the_group_in_front_of_its_record(
    kafka: Connection, template: KafkaTemplate, make_topic: MakeTopic, listen: Listen, group: str,
    store: DatabaseStore, letters_topic: Topic[Unwrapped], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    topic, narrow = make_topic(TEXT), make_topic(TEXT)  # one that takes 1 MB
    put(template, topic, b"k", os.urandom(900_000))
    failures: list[BaseException] = []

    @listener(topic, group=group)
    def on(text: str) -> None:
        raise AssertionError(text)

    for options in ({"store": store}, {}):
        listen(
            on,
            dead_letters=DeadLetters(narrow.name, template),
            on_failure=lambda _, error: failures.append(error),
            **options,
        )
        failure = eventually(lambda: failures and failures.pop())
        assert isinstance(failure, ListenerFailed)
        assert "nor can its dead letter be written: DeadLetterTooLarge" in str(failure)
    assert "its max.message.bytes should be" in caplog.text

    with pytest.raises(TopicMissing):
        listen(on, dead_letters=DeadLetters("nowhere", template))
    listen(on, dead_letters=DeadLetters(letters_topic.name, template))
    assert len(eventually(lambda: read_letters(kafka, letters_topic))) == 1, "nothing was skipped"


def test_an_external_listener_cannot_hold_back(make_topic: MakeTopic) -> None:
    with pytest.raises(ListenerDeclarationError, match="cannot hold keys back"):
        listener(make_topic(TEXT), group="g", external=True, hold_back=True)
