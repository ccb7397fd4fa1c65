from hypothesis import given
from hypothesis import strategies as st

from shop.kafka import correlation
from shop.log.way import origin_of, sender_of, sends_of

TOPIC = "ECOMMERCE_NEW_ORDER"


def sent(begun: str, *hops: tuple[str, str]) -> str:
    """The correlation id after services that each sent to a topic."""
    for title, topic in hops:
        begun = correlation.sent_to(correlation.through(begun, title), topic)
    return begun


def new_order(begun: str | None = None) -> str:
    return correlation.sent_to(begun or correlation.begin("OrderController"), TOPIC)


def test_all_that_comes_of_one_send_has_its_origin() -> None:
    order = new_order()
    rejected = sent(order, ("FraudDetector", "ECOMMERCE_ORDER_REJECTED"))
    further = sent(rejected, ("Other", "ECOMMERCE_X.y-z"))
    assert {origin_of(id_) for id_ in (order, rejected, further)} == {order}
    assert sends_of(further) == [further, rejected, order]


def test_the_sender_is_the_last_service_before_the_topic() -> None:
    order = new_order()
    assert sender_of(order) == "OrderController"
    assert sender_of(sent(order, ("FraudDetector", "ECOMMERCE_ORDER_REJECTED"))) == "FraudDetector"


@given(st.from_regex(r"\A[A-Za-z0-9._:()/+=@-]{1,200}\Z"))
def test_a_clients_correlation_id_comes_before_and_changes_nothing(given: str) -> None:
    order = new_order(correlation.through(given, "OrderController"))
    decided = sent(order, ("FraudDetector", "ECOMMERCE_ORDER_APPROVED"))
    assert sender_of(order) == "OrderController"
    assert sender_of(decided) == "FraudDetector"
    assert origin_of(order) == origin_of(decided)
    assert order.startswith(origin_of(order))


def test_an_id_that_was_cut_still_tells_where_it_began_and_who_sent_it() -> None:
    order = new_order()
    long = sent(order, *[(f"Service{n}", f"ECOMMERCE_{n}") for n in range(60)])
    assert correlation.CUT in long
    assert origin_of(long) == order
    assert sender_of(long) == "Service59"


def test_a_record_without_a_correlation_id_is_where_it_begins() -> None:
    place = f"{TOPIC}(2-42)"
    assert origin_of(place) == place
    assert origin_of(sent(place, ("FraudDetector", "ECOMMERCE_ORDER_APPROVED"))) == place
    assert sender_of(place) is None


@given(st.text(max_size=2000))
def test_strangers_ids_are_taken_as_they_are(id_: str) -> None:
    assert id_.startswith(origin_of(id_))
    sender_of(id_)
    assert all(id_.startswith(send) for send in sends_of(id_))


def test_hostile_ids_take_no_time() -> None:
    for id_ in ("-_A" * 666, "-_" + "A" * 1998, "(" * 2000, "-a(" * 666, "a-" * 1000):
        assert origin_of(id_) == id_[:600]
        assert sender_of(id_) is None
