from shop.containers import Shop
from shop.services import SERVICE_OF_GROUP
from shop.settings import Settings
from shop.verify.groups import groups_of


def test_every_group_of_the_shop_is_audited() -> None:
    wired = Shop(settings=Settings()).registry().groups
    assert {group.name for group in groups_of({})} == set(wired) == set(SERVICE_OF_GROUP)
