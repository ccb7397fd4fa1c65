"""The container held against a model broker: acknowledgement, retry, rebalance and redrive."""

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shop.db.releasing import release_letters
from shop.db.work import Work
from shop.kafka import client, intake, retry
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.dead_letter import DeadLetters
from shop.kafka.letter import REDRIVE_OF, Letter, redriven
from shop.kafka.listener import ListenerRegistry, listener
from shop.kafka.retry import Retry
from shop.kafka.store import Partition
from shop.kafka.wire import EVENT_ID, REDRIVE_TO, Message
from tests.unit.model_broker import ModelBroker, ModelConsumer
from tests.unit.model_fates import (
    A_LONG_TIME_S,
    BACKOFF,
    LANES,
    ONCE,
    PARTITIONS,
    PICK,
    SENDS,
    TURNS,
    Send,
    Turn,
    befall,
    picked,
)
from tests.unit.model_group import (
    ATTEMPTS,
    ELSEWHERE,
    GROUP,
    HELD,
    LETTERS,
    PLAIN,
    POISON,
    TEXT,
    Audit,
    Died,
    Effect,
    Faltering,
    Member,
    Place,
    Tables,
    as_letter,
)


class Listeners:
    def __init__(self, handle: Callable[[Message[str], Work, Acknowledgment], None]) -> None:
        self._handle = handle

    @listener(PLAIN, group=GROUP)
    def on_plain(self, message: Message[str], work: Work, ack: Acknowledgment) -> None:
        self._handle(message, work, ack)

    @listener(HELD, group=GROUP, hold_back=True)
    def on_held(self, message: Message[str], work: Work, ack: Acknowledgment) -> None:
        self._handle(message, work, ack)


class Group(RuleBasedStateMachine):
    """Each record has a name, which is its event id. One of PLAIN sends, when it is handled, one to
    HELD. Consumers take their turns in any order; the clock stands still between."""

    def __init__(self, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        tables.empty()
        self.tables = tables
        self.store = Faltering(tables.database)
        self.broker = ModelBroker(PARTITIONS)
        self.audit = Audit(tables, self.broker)
        self.now = 0.0
        self.members: list[Member] = []
        self.sent: list[tuple[str, bytes | None, bytes, str]] = []
        self.letters: list[Letter] = []  # as published
        self.fates: dict[str, list[str]] = {}  # call by call
        self.broken: dict[str, str] = {}
        self.wrong: list[str] = []
        clock = SimpleNamespace(monotonic=lambda: self.now, time_ns=time.time_ns)
        monkeypatch.setattr(intake, "time", clock)
        monkeypatch.setattr(retry, "time", clock)
        monkeypatch.setattr(client, "Consumer", self._client)

    def _client(self, *_: Any, **__: Any) -> ModelConsumer:
        self.client = ModelConsumer(self.broker)
        return self.client

    # Records

    @initialize(sends=st.lists(SENDS, min_size=1, max_size=4))
    def begin(self, sends: list[Send]) -> None:
        self.join(10)
        self.send(sends, [])

    @rule(sends=st.lists(SENDS, min_size=1, max_size=3), then=TURNS)
    def send(self, sends: list[Send], then: list[Turn]) -> None:
        for topic, key, fates, pick in sends:
            self._send_some(topic, key, fates, pick)
        self.work(then)

    def _send_some(self, topic: str, key: bytes | None, fates: list[Any], pick: int) -> None:
        for fate in fates:
            name = f"e{len(self.sent)}"
            if fate == "gap":
                self.broker.logs[Partition(topic, LANES[key])].append(None)
            elif fate == "again" and self.sent:
                self._send(*picked(pick, self.sent))
            else:
                value = POISON if fate == "poison" else TEXT.encode(name, name)
                self.sent.append((topic, key, value, name))
                self._send(topic, key, value, name)
            if isinstance(fate, tuple):
                self.fates[name], self.broken[name] = fate

    def _send(self, topic: str, key: bytes | None, value: bytes, name: str) -> None:
        self._append(topic, key, value, [(EVENT_ID, name.encode())])

    def _append(self, topic: str, key: bytes | None, value: bytes | None, headers: Any) -> None:
        self.broker.append(Partition(topic, LANES[key]), key, value, headers)

    @rule(most=st.integers(1, 8), deletes=st.booleans(), then=TURNS)
    def relay(self, most: int, deletes: bool, then: list[Turn]) -> None:
        self._relay(most, deletes)
        self.work(then)

    def _relay(self, most: int = 1000, deletes: bool = True) -> None:
        """What is published and not deleted is published again."""
        for id_, record in self.tables.outbox(most=most):
            if record.topic == LETTERS:
                self.letters.append(as_letter(record))
            else:
                assert not isinstance(record.key, str)
                self._append(record.topic, record.key, record.value, record.headers)
            if deletes:
                self.tables.sql.execute("DELETE FROM outbox WHERE id = ?", [id_])

    @precondition(lambda self: self.audit.letters)
    @rule(
        picks=st.lists(PICK, min_size=1, max_size=5),
        mended=st.booleans(),
        to=st.sampled_from([GROUP, GROUP, ELSEWHERE]),
        then=TURNS,
    )
    def redrive(self, picks: list[int], mended: bool, to: str, then: list[Turn]) -> None:
        self._relay()
        for letter in [picked(pick, self.letters) for pick in picks]:
            if mended and letter.event_id is not None:
                self.broken.pop(letter.event_id, None)
            self._redrive(letter, to)
        self.work(then)

    def _redrive(self, letter: Letter, to: str) -> None:
        assert letter.topic is not None
        record = redriven(letter, letter.topic, to)
        self._append(record.topic, letter.key, record.value, record.headers)

    # Members

    @precondition(lambda self: len(self.members) < 3)
    @rule(most=st.sampled_from([1, 3, 10]))
    def join(self, most: int) -> None:
        registry = ListenerRegistry()
        registry.add(Listeners(self._handle))
        container = ListenerContainer(
            Connection("model"),
            GROUP,
            registry.endpoints(GROUP, Work),
            store=self.store,
            max_poll_records=most,
            retry=Retry(attempts=ATTEMPTS, backoff=BACKOFF),
            dead_letters=DeadLetters(LETTERS),
        )
        self.members.append(Member(container, self.client))

    @precondition(lambda self: self.broker.members)
    @rule(pick=PICK, number=st.integers(0, 3), then=TURNS)
    def rebalance(self, pick: int, number: int, then: list[Turn]) -> None:
        self.broker.move(PARTITIONS[number], picked(pick, self.broker.members))
        self.work(then)

    @precondition(lambda self: self.broker.members)
    @rule(pick=PICK, told=st.booleans(), then=TURNS)
    def expel(self, pick: int, told: bool, then: list[Turn]) -> None:
        self.broker.expel(picked(pick, self.broker.members))
        if told:
            self.tell_the_expelled()
        self.work(then)

    @precondition(lambda self: len(self.broker.members) < len(self.members))
    @rule()
    def tell_the_expelled(self) -> None:
        for member in self.members:
            if member.client not in self.broker.members:
                member.client.learn_of_expulsion()

    @precondition(lambda self: self.members)
    @rule(pick=PICK, leaves=st.booleans())
    def end_a_member(self, pick: int, leaves: bool) -> None:
        member = picked(pick, self.members)
        if leaves:
            member.intake.close()
        self._drop(member)

    def _drop(self, member: Member) -> None:
        self.members.remove(member)
        if member.client in self.broker.members:
            self.broker.expel(member.client)

    @precondition(lambda self: self.members)
    @rule(turns=TURNS)
    def work(self, turns: list[Turn]) -> None:
        for turn in turns:
            if not self.members:
                return
            member = picked(turn.pick, self.members)
            self.now += turn.after
            self.store.fault = turn.fault
            member.client.rebalance_after = turn.rebalance_after
            member.client.stumbles = turn.stumbles
            self._turn(member)
            self.store.fault, member.client.rebalance_after = "", 0
            member.client.stumbles = False

    def _turn(self, member: Member) -> None:
        self.at_work = member
        member.failed.clear()
        troubles = self.store.troubles
        try:
            member.consumer.turn()
        except Died:
            self._drop(member)
        assert not self.wrong
        self.audit.look()
        if self.store.troubles > troubles:
            member.not_before.clear()  # partitions wait for the store instead
        else:
            self._look_at_attempts(member)

    def _look_at_attempts(self, member: Member) -> None:
        """Of a partition the first failure counts: it waits, and all behind it with it."""
        for partition in {place.partition for place, _ in member.failed}:
            failed = [(place, fate) for place, fate in member.failed if place[0] == partition]
            first = min(place for place, _ in failed)
            if (first, "fail") in failed:
                member.tries[first] += 1
                assert member.tries[first] <= ATTEMPTS, f"{first} is tried too often"
            if first not in self.audit.letters:
                wait = min(ONCE.get(fate, 0.0) for _, fate in failed)
                member.not_before[member.assignment(partition)] = self.now + wait

    # The listener

    def _handle(self, message: Message[str], work: Work, ack: Acknowledgment) -> None:
        member, name = self.at_work, message.event
        partition = Partition(message.topic, message.partition)
        held = member.intake.positions.held.get(partition)
        self._expect(held == self.tables.positions().get(partition), f"a zombie handles {name}")
        due = member.not_before.get(member.assignment(partition), 0.0)
        self._expect(self.now >= due, f"{name} comes again too early")
        only_for = message.header(REDRIVE_TO)
        self._expect(only_for in (None, GROUP.encode()), f"{name} is for {only_for!r}")
        fates = self.fates.get(name)
        fate = fates.pop(0) if fates else self.broken.get(name)
        if not fate:
            work.add(
                Effect,
                name=name,
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
            )
            if message.topic == PLAIN.name:
                work.send(HELD, message.key, f"{name}>")
            ack.acknowledge()
            return
        place = Place(partition, message.offset)
        member.failed.append((place, fate))
        self.audit.failures[place] += fate in ("fail", "clash")
        befall(fate, work, ack)

    def _expect(self, condition: bool, otherwise: str) -> None:
        """In a listener an AssertionError would be one more failure of a record."""
        if not condition:
            self.wrong.append(otherwise)

    # The end

    def teardown(self) -> None:
        """All is mended, and redriven: then each record has had its effect, in order."""
        self.fates.clear()
        self.broken.clear()
        self.tell_the_expelled()
        if not self.members:
            self.join(10)
        self._work_until_quiet()
        for _ in range(len(self.audit.letters) + 1):
            left = self._left_to_redrive()
            if not left:
                break
            for letter in left:
                self._redrive(letter, GROUP)
            self._work_until_quiet()
        assert not self._left_to_redrive()
        self._look_at_what_came_of_it()

    def _work_until_quiet(self) -> None:
        for _ in range(100):
            before = self._standing()
            for member in 2 * self.members:  # a gap is read twice before it is believed
                self.now += A_LONG_TIME_S
                self._turn(member)
            self._relay()
            if self._standing() == before:
                break
        for partition, log in self.broker.logs.items():
            left = log[self.audit.positions.get(partition, 0) :]
            assert not any(left), f"{partition} stands still before {left}"

    def _standing(self) -> Any:
        logs = {partition: len(log) for partition, log in self.broker.logs.items()}
        reading = [dict(member.client._next) for member in self.members]
        return logs, self.audit.positions, reading, self.tables.outbox()

    def _left_to_redrive(self) -> list[Letter]:
        """The newest letter of each; one that is poison is discarded."""
        handled = {name for name, _ in self.tables.effects()}
        held_back = self.tables.held_back()
        newest = {letter.id: letter for letter in self.audit.letters.values()}
        poison = [letter.id for letter in newest.values() if letter.value == POISON]
        release_letters(self.tables.database, GROUP, poison)
        return [
            letter
            for letter in newest.values()
            if letter.value != POISON
            and (letter.id in held_back or TEXT.decode(letter.value)[0] not in handled)
        ]

    def _look_at_what_came_of_it(self) -> None:
        effects = self.tables.effects()
        wanted = {name for *_, value, name in self.sent if value != POISON}
        wanted |= {f"{name}>" for name, at in effects if at.partition.topic == PLAIN.name}
        assert {name for name, _ in effects} == wanted
        lettered = {
            TEXT.decode(letter.value)[0]
            for letter in self.audit.letters.values()
            if letter.value != POISON
        }
        for partition, log in self.broker.logs.items():
            for key in LANES:
                came = list(
                    dict.fromkeys(
                        TEXT.decode(record.value_)[0]
                        for record in log
                        if record is not None
                        and (record.key_, record.value_ == POISON) == (key, False)
                        and REDRIVE_OF not in dict(record.headers_)
                    )
                )
                if partition.topic == PLAIN.name or key is None:
                    came = [name for name in came if name not in lettered]
                assert [name for name, _ in effects if name in came] == came, "out of order"


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    tables = Tables(tmp_path / "group.db")
    yield tables
    tables.close()


def test_whatever_happens_each_record_takes_effect_once_in_order_or_is_a_dead_letter(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "shop.kafka")
    machine: Any = partial(Group, tables, monkeypatch)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=200,
            stateful_step_count=15,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],  # add Phase.shrink for a short example; it takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
