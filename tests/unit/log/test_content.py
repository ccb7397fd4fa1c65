import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.kafka.correlation import MAX_LENGTH
from shop.log.content import LONGEST, Content, ContentCodec

codec = ContentCodec()

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
)
_envelopes = st.fixed_dictionaries(
    {},
    optional={
        "type": _json,
        "payload": _json | st.fixed_dictionaries({"orderId": _json}),
        "correlationId": _json | st.fixed_dictionaries({"id": _json}),
    },
)


def envelope(**parts: Any) -> bytes:
    return json.dumps(parts).encode()


@given(st.none() | st.binary() | _envelopes.map(lambda e: json.dumps(e).encode()))
def test_any_value_is_taken_and_kept_as_it_is(value: bytes | None) -> None:
    content, correlation_id = codec.decode(value)
    assert content.value == value
    for read in (content.type, content.order_id, correlation_id):
        assert read is None or (read.encode("utf-8") and "\0" not in read)


def test_an_envelope_is_read() -> None:
    value = envelope(type="T", payload={"amount": 1, "orderId": "o1"}, correlationId={"id": "C"})
    assert codec.decode(value) == (Content(value, "T", "o1"), "C")


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (envelope(type=5, payload={"orderId": 7}, correlationId={"id": "C"}), (None, None, "C")),
        (envelope(type="T", payload=[1e300], correlationId={"id": 1}), ("T", None, None)),
        (envelope(payload={"orderId": "o1"}, correlationId="C"), (None, "o1", None)),
        (b'{"type":"T","payload":{"orderId":"o1","x":"\xff"}}', ("T", "o1", None)),
        (b'{"type":"T","payload":"\xff","correlationId":{"id":"C"}}', ("T", None, "C")),
        (envelope(payload={"orderId": "x" * (LONGEST + 1)}), (None, None, None)),
        (envelope(payload={"orderId": "a\0b"}), (None, None, None)),
        (envelope(correlationId={"id": ""}), (None, None, None)),
        (b"[" * 1_000_000, (None, None, None)),
        (b'{"type":' * 100_000, (None, None, None)),
        (b"null", (None, None, None)),
    ],
)
def test_what_can_be_read_is_read_whatever_the_rest_is_like(
    value: bytes, read: tuple[str | None, str | None, str | None]
) -> None:
    content, correlation_id = codec.decode(value)
    assert (content.type, content.order_id, correlation_id) == read


def test_a_correlation_id_is_bounded_and_breaks_no_line() -> None:
    _, correlation_id = codec.decode(envelope(correlationId={"id": "a\n\x1b\0" + "x" * 10_000}))
    assert correlation_id is not None
    assert correlation_id.startswith(r"a\n\x1b\x00x")
    assert len(correlation_id) <= MAX_LENGTH
