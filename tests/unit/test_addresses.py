import re

from hypothesis import given
from hypothesis import strategies as st

from shop.email.message import is_address
from shop.orders.contract import EMAIL


@given(st.from_regex(EMAIL).filter(lambda address: len(address) <= 254))
def test_an_address_that_the_api_takes_can_be_mailed_to(address: str) -> None:
    assert is_address(address)


@given(st.text(st.sampled_from("ab.@-_,;<>\"'()[] é\n"), max_size=12))
def test_also_among_the_odd_ones(address: str) -> None:
    assert is_address(address) or not re.search(EMAIL, address)
