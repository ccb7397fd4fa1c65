"""What `shop torture` refuses: brokers that somebody else uses."""

from tests.commands import ShopPlace

ORDER = '{"orderId": "1", "amount": 10, "email": "ana@example.com"}'


def test_brokers_whose_topics_hold_records_are_refused(shop_place: ShopPlace) -> None:
    assert shop_place.run("topics", "send", "ECOMMERCE_NEW_ORDER", ORDER).code == 0

    said = shop_place.run("torture")

    assert said.code == 1
    assert "ECOMMERCE_NEW_ORDER" in said.stderr
    assert "--really" in said.stderr
    assert said.stderr.count("\n") == 1


def test_brokers_on_which_a_shop_runs_are_refused_whatever_is_said(shop_place: ShopPlace) -> None:
    with shop_place.running("listen", "--group", "users"):
        said = shop_place.run("torture", "--really")

    assert said.code == 1
    assert "the groups users have members" in said.stderr
    assert said.stderr.count("\n") == 1


def test_the_number_of_nodes_is_of_the_embedded_kafka(shop_place: ShopPlace) -> None:
    said = shop_place.run("torture", "--nodes", "3")

    assert said.code == 2
    assert "--nodes" in said.stderr
