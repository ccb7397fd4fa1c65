import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.printable import shortened, whole

_atoms = st.text("abcXYZ019!#$%&'*+/=?^_`{|}~-.", min_size=2, max_size=64)


@given(_atoms, st.sampled_from(["@", "%40", "\\u0040"]))
def test_an_address_keeps_one_character_before_its_at(local: str, at: str) -> None:
    shown = shortened(f'{{"email":"{local}{at}example.com","n":1}}'.encode())
    first = local.replace("%40", "@")[0]
    assert shown == f'{{"email":"{first}…@example.com","n":1}}'


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("ana@example.com", "a…@example.com"),
        ("from <ana@example.com>, to bia@x.org;c@d", "from <a…@example.com>, to b…@x.org;c…@d"),
        ("joão@example.com", "j…@example.com"),
        ("5 @ home", "5 @ home"),
        ("", ""),
    ],
)
def test_addresses_are_shortened_wherever_they_stand(value: str, shown: str) -> None:
    assert shortened(value.encode()) == shown


@given(st.none() | st.binary(max_size=3000) | st.text(max_size=3000).map(str.encode))
def test_whatever_comes_is_one_line_that_steers_no_terminal(data: bytes | None) -> None:
    for shown in (shortened(data), whole(data)):
        assert shown.isprintable()


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_an_address_in_a_long_value_shows_nowhere(before: int, after: int) -> None:
    words = "word " * (before // 5)
    value = json.dumps({"text": f"{words}maria.silva@example.com{' more' * (after // 5)}"})
    assert "maria" not in shortened(value.encode())


def test_a_long_value_is_cut_and_its_length_told() -> None:
    shown = shortened(b"x " * 500_000)
    assert shown.startswith("x x x")
    assert shown.endswith("… (1,000,000 bytes)")
    assert len(shown) < 600


def test_all_of_it_is_shown_where_that_was_asked_for() -> None:
    value = "ana@example.com " * 1000
    assert whole(value.encode()) == value
    assert whole(b"a\r\n\xff") == r"a\r\n\xff"
    assert whole(None) == shortened(None) == "(null)"
