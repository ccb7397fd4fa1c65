"""What comes to the dead-letter topic, from us and from others, as letters."""

import base64
import json
from array import array
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from shop.deadletters.model import LetterRow
from shop.kafka.errors import WireError
from shop.kafka.ids import derived_id
from shop.kafka.letter import ATTEMPTS, ID, REDRIVE_OF, SPRING
from shop.kafka.outbound import OutboundRecord
from shop.kafka.wire import EVENT_ID, REDRIVE_TO
from shop.topics import DEADLETTER, NEW_ORDER, PIX, SEND_EMAIL
from tests import java
from tests.unit.deadletters.conftest import Api, Raw

NOISE = bytes(range(256)) * 4096  # 1 MB
HOP = "NewOrderMain(1)-_ECOMMERCE_NEW_ORDER(2)"
ORDER = java.envelope(java.ORDER, java.order("ana@example.com", order_id="o1"), HOP)


def javas_letter(value: bytes) -> OutboundRecord:
    numbers = json.dumps(array("b", value).tolist())
    letter = java.envelope("[B", numbers, f"{HOP}-DeadLetter(3)-_ECOMMERCE_DEADLETTER(4)")
    return OutboundRecord(DEADLETTER.name, f"{HOP}-DeadLetter(3)", letter, [])


def springs_letter(
    value: bytes | None, *headers: tuple[str, bytes | None], topic: str = "pix-topic"
) -> OutboundRecord:
    added = {
        "original-topic": topic.encode(),
        "original-partition": (2).to_bytes(4, "big"),
        "original-offset": (7).to_bytes(8, "big"),
        "original-consumer-group": b"pix",
        "exception-fqcn": b"java.lang.IllegalStateException",
        "exception-message": b"no",
    }
    own = [*headers, *((SPRING + name, text) for name, text in added.items())]
    return OutboundRecord(DEADLETTER.name, "k", value, own)  # type: ignore[arg-type]


def test_a_letter_of_ours_is_kept_with_its_record_and_why_it_failed(api: Api) -> None:
    headers = [("event-id", b"e1"), ("mine", b"\xff"), ("nothing", None)]
    api.keeper.fail(Raw(at=5, its_headers=headers), error=WireError("not an envelope"))
    letter = api.only()
    expected = {
        "state": "waiting", "topic": "ECOMMERCE_NEW_ORDER", "partition": 0, "offset": 5,
        "group": "fraud", "eventId": "e1", "exception": "shop.kafka.errors.WireError",
        "message": "not an envelope", "attempts": 4, "failures": 1, "key": "ana@example.com",
        "value": "not an envelope", "timestamp": "2023-11-14T22:13:20Z",
    }  # fmt: skip
    assert {name: letter[name] for name in expected} == expected
    assert letter["headers"] == [
        {"name": "event-id", "value": "e1"},
        {"name": "mine", "value": {"base64": base64.b64encode(b"\xff").decode()}},
        {"name": "nothing", "value": None},
    ]
    assert [(e["what"], e["by"], e["offset"]) for e in letter["history"]] == [
        ("failed", "fraud", 5)
    ]


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe", NOISE, b"[" * 100_000])
@pytest.mark.parametrize("key", [None, b"", b"\xff", b"k\0"])
def test_every_byte_of_a_record_comes_back(api: Api, key: bytes | None, value: Any) -> None:
    api.keeper.fail(Raw(its_key=key, its_value=value, its_headers=[("h", None), ("h", b"\xfe")]))
    api.send_redrives()
    api.redriven(olderThan=0)
    (record,) = api.sent()
    assert (record.topic, record.key, record.value) == ("ECOMMERCE_NEW_ORDER", key, value)
    told = dict(record.headers)
    assert [(n, v) for n, v in record.headers if n == "h"] == [("h", None), ("h", b"\xfe")]
    assert told[REDRIVE_TO] == b"fraud"
    assert told[REDRIVE_OF].decode() == api.only()["id"]


LONG = b"e" * 1000


@pytest.mark.parametrize("event_id", [b"\xff\xfe", b"e\0", LONG])
def test_every_header_comes_back_as_it_was_however_often_it_fails(
    api: Api, event_id: bytes
) -> None:
    own = [("a", b"1"), (EVENT_ID, b"first"), ("a", None), (EVENT_ID, event_id), (EVENT_ID, b"")]
    api.keeper.fail(Raw(its_headers=own))
    api.keeper.take(springs_letter(b"{}", *own))
    api.keeper.take(OutboundRecord(DEADLETTER.name, None, b"garbage", own))  # type: ignore[arg-type]
    api.send_redrives()
    api.redriven(olderThan=0, to=PIX.name)
    again = next(record for record in api.sent() if record.topic == NEW_ORDER.name)
    api.keeper.fail(Raw(at=9, its_headers=again.headers))
    api.redriven(group="fraud")
    assert [record.headers[: len(own)] for record in api.sent()] == [own] * 4
    assert len({letter["eventId"] for letter in map(api.letter, ids(api))}) == 1


def ids(api: Api) -> list[str]:
    return [letter["id"] for letter in api.letters()]


def test_a_record_that_fails_again_is_one_letter_with_its_history(api: Api) -> None:
    api.keeper.fail(Raw(at=1, its_headers=[("event-id", b"e1")]))
    api.send_redrives()
    for number in range(1, 3):
        api.redriven(group="fraud")
        (*_, record) = api.sent()
        again = Raw(at=10 * number, its_headers=record.headers)
        api.keeper.fail(again, error=KeyError("else"))
    letter = api.only()
    assert (letter["state"], letter["failures"], letter["offset"]) == ("waiting", 3, 1)
    assert letter["exception"] == "builtins.KeyError"
    assert letter["headers"] == [{"name": "event-id", "value": "e1"}]
    happened = [(event["what"], event["offset"]) for event in letter["history"]]
    redriven = ("redriven", None)
    assert happened == [("failed", 1), redriven, ("failed", 10), redriven, ("failed", 20)]
    assert len({len(record.headers) for record in api.sent()}) == 1, "it does not grow"


def test_a_letter_published_twice_is_one_failure(api: Api) -> None:
    record = Raw(its_headers=[("event-id", b"e1")])
    api.keeper.fail(record, record)
    api.keeper.fail(record)
    assert api.only()["failures"] == 1


def test_a_record_that_two_groups_could_not_handle_is_two_letters(api: Api) -> None:
    api.keeper.fail(Raw())
    api.keeper.fail(Raw(), group="users")
    assert {letter["group"] for letter in api.letters()} == {"fraud", "users"}


def test_a_java_letter_is_understood_by_the_envelope_within(api: Api) -> None:
    api.keeper.take(javas_letter(ORDER))
    letter = api.only()
    assert (letter["topic"], letter["group"]) == ("ECOMMERCE_NEW_ORDER", None)
    assert (letter["key"], letter["value"]) == ("ana@example.com", ORDER.decode())
    assert letter["eventId"] == derived_id(HOP, NEW_ORDER)
    assert letter["correlationId"] == HOP


@pytest.mark.parametrize(
    ("hop", "payload", "topic", "key"),
    [
        (f"M(1)-_{SEND_EMAIL}(2)", '"text"', SEND_EMAIL.name, None),  # nobody can tell to whom
        (HOP, '{"orderId":"no amount"}', NEW_ORDER.name, None),
        ("M(1)-_ELSEWHERE(2)", "{}", None, "NewOrderMain"),
        ("M(1)", "{}", None, "NewOrderMain"),
    ],
)
def test_what_a_java_letter_does_not_tell_is_not_guessed(
    api: Api, hop: str, payload: str, topic: str | None, key: str | None
) -> None:
    value = java.envelope(java.TEXT, payload, hop)
    api.keeper.take(javas_letter(value))
    letter = api.only()
    assert (letter["topic"], letter["value"]) == (topic, value.decode())
    assert (letter["key"] or "").startswith(key or "")
    assert (letter["key"] is None) == (key is None)


def test_a_java_record_that_fails_again_is_the_same_letter(api: Api) -> None:
    api.keeper.take(javas_letter(ORDER), javas_letter(ORDER))
    other = ORDER.replace(b"(2)", b"(5)")
    api.keeper.take(javas_letter(other))
    assert sorted(letter["failures"] for letter in api.letters()) == [1, 2]


@pytest.mark.parametrize(
    "value", [None, b"\xff", b"{}", java.envelope(java.TEXT, '"a mail"', "M(1)-_ELSEWHERE(2)")]
)
def test_a_spring_letter_holds_the_records_own_value(api: Api, value: bytes | None) -> None:
    headers = [("__TypeId__", b"T"), ("event-id", b"e7")]
    api.keeper.take(springs_letter(value, *headers))
    api.send_redrives()
    api.redriven(group="pix")
    (record,) = api.sent()
    assert (record.topic, record.key, record.value) == (PIX.name, b"k", value)
    letter = api.only()
    assert (letter["partition"], letter["offset"]) == (2, 7)
    assert record.headers == [
        *headers,
        (REDRIVE_TO, b"pix"),
        (REDRIVE_OF, letter["id"].encode()),
    ]


def test_a_spring_record_that_fails_again_is_the_same_letter(api: Api) -> None:
    api.keeper.take(springs_letter(b"{}", ("event-id", b"e7")))
    api.send_redrives()
    api.redriven(olderThan=0)
    (record,) = api.sent()
    api.keeper.take(springs_letter(b"{}", *record.headers))
    letter = api.only()
    assert (letter["state"], letter["failures"]) == ("waiting", 2)


@pytest.mark.parametrize("value", [None, b"", b"garbage", b'{"type":"[B","payload":[999]}'])
def test_anything_else_is_kept_as_it_came_and_sent_where_one_says(
    api: Api, value: bytes | None
) -> None:
    came = OutboundRecord(DEADLETTER.name, b"\xff", value, [("h", b"1")])
    api.keeper.take(came)
    letter = api.only()
    assert letter["topic"] is None
    api.send_redrives()
    plan = api.redrive(200, olderThan=0, dryRun=True)
    assert (plan["letters"], plan["withoutTopic"]) == (0, 1)
    to_all = [{"topic": PIX.name, "group": None, "letters": 1}]
    assert api.redriven(olderThan=0, to=PIX.name)["destinations"] == to_all
    (record,) = api.sent()
    assert (record.topic, record.key, record.value) == (PIX.name, b"\xff", value)
    told = dict(record.headers)
    assert told["h"] == b"1"
    assert told[EVENT_ID].decode() == letter["eventId"]
    assert REDRIVE_TO not in told


_NAMES = st.sampled_from(
    [EVENT_ID, ID, ATTEMPTS, REDRIVE_OF, REDRIVE_TO, "correlation-id", "traceparent"]
    + [f"{SPRING}original-{name}" for name in ("topic", "partition", "offset", "timestamp")]
    + [f"{SPRING}{name}" for name in ("original-consumer-group", "exception-fqcn")]
)
_BYTES = st.none() | st.binary(max_size=40) | st.sampled_from(
    [b"\0", b"9" * 20, b"9" * 5000, b"x" * 10_000, "\ud800".encode("utf-8", "surrogatepass")]
)  # fmt: skip
_VALUES = _BYTES | st.sampled_from(
    [
        ORDER,
        java.envelope(java.TEXT, '"\\ud800"', "M(1)"),
        java.envelope(java.TEXT, '"\\u0000"', f"\\u0000-_{NEW_ORDER}(\\ud800)"),
        java.envelope("[B", "[1,-128,127]", "M"),
    ]
)


@given(records=st.lists(st.tuples(_BYTES, _VALUES, st.lists(st.tuples(_NAMES, _BYTES)))))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_record_can_stop_the_group(api: Api, records: list[Any]) -> None:
    first = api.keeper.taken
    api.keeper.take(
        *(OutboundRecord(DEADLETTER.name, key, value, headers) for key, value, headers in records)
    )
    new = select(LetterRow.__table__).where(LetterRow.letter_offset >= first)
    with api.database.read() as connection:
        for row in connection.execute(new):
            texts = [text for text in row if isinstance(text, str)]
            assert all("\0" not in text and len(text) <= 8_000 for text in texts)
            assert api.client.get(f"/deadletters/{row.id}").status_code == 200
