from typing import Any

import pytest

from shop.containers import Shop
from shop.email.listeners import Email
from shop.services import SERVICE_OF_GROUP
from shop.settings import Settings
from shop.verify.groups import groups_of


def test_every_group_of_the_shop_is_audited_and_nothing_of_it_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(*_: Any, **__: Any) -> None:
        raise AssertionError("it would connect to a mail server")

    monkeypatch.setattr(Email, "__init__", build)
    registry = Shop(settings=Settings()).registry()
    assert {group.name for group in groups_of(registry, {})} == set(SERVICE_OF_GROUP)
