import re

from hypothesis import given
from hypothesis import strategies as st

from shop.kafka import correlation


def test_an_id_tells_a_records_whole_way() -> None:
    order = correlation.sent_to(correlation.begin("OrderController"), "ECOMMERCE_NEW_ORDER")
    decision = correlation.sent_to(correlation.through(order, "FraudDetector"), "REJECTED")
    uuid = r"\([0-9a-f-]{36}\)"
    assert re.fullmatch(
        rf"OrderController{uuid}-_ECOMMERCE_NEW_ORDER{uuid}-FraudDetector{uuid}-_REJECTED{uuid}",
        decision,
    )
    assert decision.startswith(order)


@given(st.text())
def test_an_id_is_bounded_and_keeps_its_beginning_and_end(text: str) -> None:
    long = text * 200 + "x" * 2000 + "END"
    cut = correlation.bounded(long)
    assert len(cut) <= correlation.MAX_LENGTH
    assert cut.startswith(long[:900])
    assert cut.endswith("END")
    assert correlation.CUT in cut
    assert correlation.bounded(cut) == cut


def test_a_strangers_id_is_one_short_line_of_plain_characters() -> None:
    assert correlation.acceptable("checkout-17")
    for bad in ("", "a b", "a\n", "a\r\nX: y", "ä", "x" * 201, "\0", "<script>", "ana@example.com"):
        assert not correlation.acceptable(bad)
