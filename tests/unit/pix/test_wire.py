"""The form of Spring's JsonSerializer on pix-topic, as captured from the Java system."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.events import LocalDateTime, Pix
from shop.kafka.errors import WireError
from shop.kafka.outbound import outbound
from shop.topics import PIX

JAVA = (
    '{"identifier":"39cc2e64-…","chaveOrigem":"ana","chaveDestino":"bia","valor":0.1,'
    '"dataTransferencia":[2026,11,22,12,33,42,666228733],"status":"EM_PROCESSAMENTO"}'
).encode()
OURS = JAVA.replace(b"[2026,11,22,12,33,42,666228733]", b'"2026-11-22T12:33:42.666228733"')
PAYMENT = Pix(
    identifier="39cc2e64-…",
    source_key="ana",
    target_key="bia",
    amount=Decimal("0.1"),
    transferred_at=LocalDateTime("2026-11-22T12:33:42.666228733"),
    status="EM_PROCESSAMENTO",
)


def decoded(value: str | bytes) -> Pix:
    return PIX.codec.decode(value.encode() if isinstance(value, str) else value)[0]


def test_a_payment_of_the_java_system_is_read() -> None:
    assert decoded(JAVA) == PAYMENT


def test_a_payment_is_written_in_the_order_of_its_fields_with_an_iso_date() -> None:
    record = outbound(PIX, None, PAYMENT, correlation_id="C")
    assert record.value == OURS
    assert record.key == "39cc2e64-…"
    assert dict(record.headers)["__TypeId__"] == b"com.alura.pix.dto.PixDTO"


def test_what_is_written_is_read_the_same() -> None:
    assert decoded(OURS) == PAYMENT


def test_a_time_of_ours_is_local_and_without_a_zone() -> None:
    now = datetime(2026, 11, 22, 12, 33, 42, 666228).astimezone()
    assert LocalDateTime.of(now) == "2026-11-22T12:33:42.666228"


@pytest.mark.parametrize(
    ("date", "read"),
    [
        ("[2026,11,22,12,33]", "2026-11-22T12:33:00"),
        ("[2026,1,2,3,4,5]", "2026-01-02T03:04:05"),
        ("[2026,11,22,12,33,42,1]", "2026-11-22T12:33:42.000000001"),
        ("[2026,11,22,12,33,42,999999999]", "2026-11-22T12:33:42.999999999"),
        ('"2026-11-22T12:33"', "2026-11-22T12:33"),
        ('"2026-11-22T12:33:42"', "2026-11-22T12:33:42"),
        ('"2026-11-22T12:33:42.666228733"', "2026-11-22T12:33:42.666228733"),
        ("null", None),
    ],
)
def test_a_date_is_an_array_of_5_to_7_numbers_or_a_local_iso_time(
    date: str, read: str | None
) -> None:
    assert decoded(f'{{"dataTransferencia":{date}}}').transferred_at == read


@pytest.mark.parametrize(
    "date",
    [
        *("[]", "[2026,11,22,12]", "[2026,11,22,12,33,42,0,0]", "[2026,13,22,12,33]"),
        *("[2026,11,22,12,33,42,1000000000]", "[2026,11,22,12,33,42,-1]", "[2026,11,22,12,33.5]"),
        *("[2026,11,22,12,true]", '"2026-11-22"', '"2026-02-30T12:33"', '"2026-11-22T12:33Z"'),
        *('"2026-11-22T12:33+01:00"', "1795350822", "{}", '""'),
    ],
)
def test_what_is_no_local_date_is_refused(date: str) -> None:
    with pytest.raises(WireError, match="not a Pix"):
        decoded(f'{{"dataTransferencia":{date}}}')


@pytest.mark.parametrize(
    ("number", "read"),
    [
        ("1e2", "1E+2"),
        ("1E-7", "1E-7"),
        ('"0.10"', "0.10"),
        ("10.00", "10.00"),
        ("0." + "0" * 50 + "1", "0." + "0" * 50 + "1"),
        ("9" * 60, "9" * 60),
    ],
)
def test_an_amount_is_kept_in_whatever_form_with_every_digit(number: str, read: str) -> None:
    amount = decoded(f'{{"valor":{number}}}').amount
    assert amount is not None
    assert amount.as_tuple() == Decimal(read).as_tuple()


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_an_amount_is_written_with_every_digit(amount: Decimal) -> None:
    written = decoded(PIX.codec.encode(Pix(amount=amount), "C")).amount
    assert written is not None
    assert written.as_tuple() == amount.as_tuple()


@pytest.mark.parametrize("number", ['"NaN"', '"Infinity"', "true", '"x"', "[1]", "{}"])
def test_an_amount_that_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(WireError, match="not a Pix"):
        decoded(f'{{"valor":{number}}}')


def test_fields_may_be_null_missing_unknown_or_in_another_order() -> None:
    nulls = ",".join(
        f'"{name}":null'
        for name in (
            *("identifier", "chaveOrigem", "chaveDestino", "valor", "dataTransferencia", "status"),
        )
    )
    assert decoded(f"{{{nulls}}}") == decoded("{}") == Pix()
    mixed = '{"x":[{}],"valor":1,"chaveDestino":"bia","descricao":"y","chaveOrigem":"ana"}'
    assert decoded(mixed) == Pix(source_key="ana", target_key="bia", amount=Decimal(1))


@given(st.binary())
def test_noise_is_refused_with_an_error_that_says_so(noise: bytes) -> None:
    with pytest.raises(WireError, match="not a Pix"):
        decoded(noise)


@pytest.mark.parametrize("value", [None, b"null", b"[" * 100_000, b'{"status":"\xff"}'])
def test_what_is_no_payment_is_refused(value: Any) -> None:
    with pytest.raises(WireError):
        PIX.codec.decode(value)
