from collections.abc import Callable
from itertools import pairwise

import pytest

from shop.pix.keys import Registration, register
from tests.unit.pix.conftest import Api


def test_a_key_is_registered_once(api: Api) -> None:
    first, again = api.register("once"), api.register("once")
    assert (first.status_code, first.json()) == (201, {"chave": "once"})
    assert (again.status_code, again.json()) == (200, {"chave": "once"})


def test_of_several_at_once_the_first_is_the_new_one(api: Api) -> None:
    registrations = [Registration(key) for key in ("x", "y", "x", "once more", "x")]
    api.register("once more")
    with api.database.write() as connection:
        assert register(connection, registrations) == [True, True, False, False, False]


@pytest.mark.parametrize(
    "key",
    ["ana@example.com", "+5511999990000", "123.456.789-09", "João da Silva", "x" * 77, "💸", " "],
)
def test_a_key_is_any_text_of_1_to_77_characters(api: Api, key: str) -> None:
    assert api.register(key).json() == {"chave": key}
    assert api.pay(key, key).status_code == 200


def test_the_list_is_in_the_order_of_the_keys_page_by_page(start_api: Callable[[], Api]) -> None:
    api = start_api()
    keys = {f"{name}-{number}" for number in range(3) for name in ("bia", "ana", "çé&=+ %", "'\"")}
    for key in keys:
        api.register(key)
    pages = []
    url: str | None = "/pix/keys?limit=5"
    while url is not None:
        page = api.client.get(url).json()
        pages.append([one["chave"] for one in page["keys"]])
        url = page["next"]
    assert [len(page) for page in pages] == [5, 5, 2]
    listed = [key for page in pages for key in page]
    assert set(listed) == keys
    assert all(first < second for first, second in pairwise(listed))
