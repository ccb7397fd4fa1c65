from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.events import Order, User
from shop.kafka.errors import WireError
from shop.kafka.ids import derived_id
from shop.kafka.outbound import outbound
from shop.kafka.wire import EVENT_ID, TRACEPARENT, received_ids
from shop.topics import (
    NEW_ORDER,
    SEND_EMAIL,
    SEND_MESSAGE_TO_ALL_USERS,
    USER_GENERATE_READING_REPORT,
)

ORDERS, TEXTS = NEW_ORDER.codec, SEND_EMAIL.codec

# As captured from the Java services.
JAVA_ORDER = (
    '{"type":"br.com.alura.ecommerce.Order","payload":{"orderId":"5548b54a-…","amount":'
    '3443.9094220305460112285800278186798095703125,"email":"ana@example.com"},"correlationId":'
    '{"id":"NewOrderMain(266ad692-…)-_ECOMMERCE_NEW_ORDER(681a729d-…)"}}'
).encode()
JAVA_TEXT = (
    '{"type":"java.lang.String","payload":"Thank you for your order! We are processing your '
    'order!","correlationId":{"id":"…-EmailNewOrderService(…)-_ECOMMERCE_SEND_EMAIL(…)"}}'
).encode()
JAVA_TO_ALL_USERS = (
    '{"type":"java.lang.String","payload":"ECOMMERCE_USER_GENERATE_READING_REPORT","correlationId":'
    '{"id":"GenerateAllReportsServlet(…)-_ECOMMERCE_SEND_MESSAGE_TO_ALL_USERS(…)"}}'
).encode()
JAVA_USER = (
    '{"type":"br.com.alura.ecommerce.User","payload":{"uuid":"85268c5a-…"},"correlationId":'
    '{"id":"…-BatchSendMessageService(…)-_ECOMMERCE_USER_GENERATE_READING_REPORT(…)"}}'
).encode()

text = st.text(st.characters(exclude_categories=["Cs"]))
amounts = st.decimals(allow_nan=False, allow_infinity=False)


def test_an_order_of_the_java_services_comes_and_goes_byte_for_byte() -> None:
    order, correlation_id = ORDERS.decode(JAVA_ORDER)
    assert order.amount == Decimal("3443.9094220305460112285800278186798095703125")
    assert ORDERS.encode(order, correlation_id or "") == JAVA_ORDER


def test_a_text_of_the_java_services_comes_and_goes_byte_for_byte() -> None:
    body, correlation_id = TEXTS.decode(JAVA_TEXT)
    assert body == "Thank you for your order! We are processing your order!"
    assert TEXTS.encode(body, correlation_id or "") == JAVA_TEXT


def test_what_asks_for_reports_comes_and_goes_byte_for_byte_and_under_the_same_keys() -> None:
    name, correlation_id = SEND_MESSAGE_TO_ALL_USERS.codec.decode(JAVA_TO_ALL_USERS)
    assert name == USER_GENERATE_READING_REPORT.name
    asked = SEND_MESSAGE_TO_ALL_USERS.codec.encode(name, correlation_id or "")
    assert asked == JAVA_TO_ALL_USERS
    assert outbound(SEND_MESSAGE_TO_ALL_USERS, None, name, correlation_id="C").key == name

    user, correlation_id = USER_GENERATE_READING_REPORT.codec.decode(JAVA_USER)
    assert user == User(uuid="85268c5a-…")
    assert USER_GENERATE_READING_REPORT.codec.encode(user, correlation_id or "") == JAVA_USER
    assert outbound(USER_GENERATE_READING_REPORT, None, user, correlation_id="C").key == user.uuid


@given(order_id=text | st.none(), amount=amounts, email=text, correlation_id=text)
def test_what_was_encoded_is_decoded(
    order_id: str | None, amount: Decimal, email: str, correlation_id: str
) -> None:
    order = Order(order_id=order_id, amount=amount, email=email)
    decoded, decoded_id = ORDERS.decode(ORDERS.encode(order, correlation_id))
    assert decoded == order
    assert decoded.amount.as_tuple() == amount.as_tuple()  # digits, not only the value
    assert decoded_id == correlation_id


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
KNOWN = {"type", "payload", "correlationId", "orderId", "amount", "email", "id"}
unknown_fields = st.dictionaries(text.filter(lambda name: name not in KNOWN), json_values)


@given(outer=unknown_fields, inner=unknown_fields, reverse=st.booleans())
def test_unknown_fields_and_the_order_of_fields_do_not_matter(
    outer: dict[str, Any], inner: dict[str, Any], reverse: bool
) -> None:
    payload = {**inner, "orderId": "1", "amount": "10.10", "email": "a@b"}
    value = {
        **outer,
        "type": "br.com.alura.ecommerce.Order",
        "payload": dict(reversed(payload.items())) if reverse else payload,
        "correlationId": {"id": "C"},
    }
    if reverse:
        value = dict(reversed(value.items()))
    order = Order(order_id="1", amount=Decimal("10.10"), email="a@b")
    assert ORDERS.decode(msgspec.json.encode(value)) == (order, "C")


@given(st.binary())
def test_noise_is_refused_with_an_error_that_says_so(noise: bytes) -> None:
    with pytest.raises(WireError, match="not an envelope"):
        ORDERS.decode(noise)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "null"),
        (b"null", "Expected `object`"),
        (b'{"type":"java.lang.Runtime","payload":"x"}', "not one of br.com.alura.ecommerce.Order"),
        (b'{"payload":{"amount":1,"email":"x"}}', "missing required field `type`"),
        (b'{"type":"br.com.alura.ecommerce.Order","payload":"x"}', "Expected `object`, got `str`"),
        (b'{"type":"br.com.alura.ecommerce.Order","payload":{"email":"x"}}', "`amount`"),
        (
            b'{"type":"br.com.alura.ecommerce.Order","payload":{"amount":"NaN","email":"x"}}',
            "not a finite number",
        ),
        (
            b'{"type":"br.com.alura.ecommerce.Order","payload":{"amount":1,"email":"\xff"}}',
            "invalid start byte",
        ),
        (b"[" * 100_000, "not an envelope"),
        (b'{"a":' * 100_000, "not an envelope"),
    ],
)
def test_what_is_not_an_order_is_refused(value: bytes | None, why: str) -> None:
    with pytest.raises(WireError, match=why):
        ORDERS.decode(value)


def test_an_event_of_another_type_is_not_sent() -> None:
    with pytest.raises(WireError, match="a str cannot be sent here; it takes Order"):
        ORDERS.encode("text", "C")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "expected"), [("1e2", "1E+2"), ("1E-7", "1E-7"), ('"0.10"', "0.10"), ("-0", "0")]
)
def test_an_amount_may_have_an_exponent_or_be_a_string(number: str, expected: str) -> None:
    value = f'{{"type":"br.com.alura.ecommerce.Order","payload":{{"amount":{number},"email":""}}}}'
    assert ORDERS.decode(value.encode())[0].amount == Decimal(expected)


def test_a_record_with_headers_is_named_by_them() -> None:
    headers = [("x", b"1"), (EVENT_ID, b"e"), (TRACEPARENT, b"t")]
    assert received_ids(headers, "C", "T", 0, 1) == ("e", "C", "t", None)


def test_a_record_without_headers_is_named_by_its_correlation_id_wherever_it_lies() -> None:
    first, second = received_ids([], "C", "T", 0, 1), received_ids([], "C", "T", 2, 9)
    assert first == second
    assert received_ids([], "D", "T", 0, 1) != first
    assert received_ids([], "C", "U", 0, 1)[0] != first[0]


def test_a_record_without_a_correlation_id_is_named_by_where_it_lies() -> None:
    assert received_ids([], None, "T", 0, 1)[1] == "T(0-1)"
    assert received_ids([], None, "T", 0, 1) != received_ids([], None, "T", 0, 2)


@given(cause=text, group=text, number=st.integers(0, 10_000))
def test_a_derived_id_is_the_same_again_and_another_for_another_number(
    cause: str, group: str, number: int
) -> None:
    assert derived_id(cause, group, number) == derived_id(cause, group, number)
    assert derived_id(cause, group, number) != derived_id(cause, group, number + 1)


def test_a_derived_id_keeps_its_causes_place_in_time() -> None:
    cause = "0193a5b2-7c4d-7e1f-a2b3-c4d5e6f70819"
    assert derived_id(cause, "fraud", 0)[:13] == cause[:13]
    assert derived_id(f"ECOMMERCE_NEW_ORDER:{cause}", "fraud", 0)[:13] == cause[:13]


def test_ids_that_no_database_takes_are_made_such_as_it_does() -> None:
    long, cut = b"e" * 10_000, b"e\0f"
    ids = [received_ids([(EVENT_ID, id_)], None, "T", 0, 1)[0] for id_ in (long, long, cut, b"e")]
    assert ids[0] == ids[1]
    assert len({*ids}) == 3
    assert all(len(id_) < 100 and "\0" not in id_ for id_ in ids)
    assert ids[3] == "e"

    _, correlation_id, traceparent, _ = received_ids([(TRACEPARENT, long)], "C\0" * 5000, "T", 0, 1)
    assert len(correlation_id) <= 2000
    assert "\0" not in correlation_id
    assert traceparent is None
