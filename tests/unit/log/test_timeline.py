import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from shop.cli.timeline import drawing
from shop.http.app import create_app
from shop.http.server import HttpServer
from shop.kafka import correlation
from shop.log.api import timelines_api
from shop.log.reading import MOST
from tests.unit.log.conftest import Trail

NEW, APPROVED, MAIL = "ECOMMERCE_NEW_ORDER", "ECOMMERCE_ORDER_APPROVED", "ECOMMERCE_SEND_EMAIL"
ACCEPTED = 1_700_000_000_000  # milliseconds


class Api:
    def __init__(self, trail: Trail) -> None:
        self.accepted: dict[str, datetime] = {}
        server = HttpServer(create_app(timelines_api(trail.database, self._accepted)), port=0)
        started = threading.Event()
        self._server = server
        self._thread = threading.Thread(target=server.run, args=(started.set,))
        self._thread.start()
        assert started.wait(20)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60)

    def accept(self, order_id: str) -> None:
        self.accepted[order_id] = datetime.fromtimestamp(ACCEPTED / 1000, UTC)

    def timeline(self, order_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/orders/{order_id}/timeline")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def stop(self) -> None:
        self._server.stop()
        self._thread.join(20)
        self.client.close()

    async def _accepted(self, order_id: str) -> datetime | None:
        return self.accepted.get(order_id)


@pytest.fixture
def api(trail: Trail) -> Iterator[Api]:
    api = Api(trail)
    yield api
    api.stop()


def new_order(given: str | None = None) -> str:
    title = "OrderController"
    begun = correlation.through(given, title) if given else correlation.begin(title)
    return correlation.sent_to(begun, NEW)


def sent(cause: str, title: str, topic: str) -> str:
    return correlation.sent_to(correlation.through(cause, title), topic)


def way(trail: Trail, order_id: str, given: str | None = None, after: int = 0) -> str:
    """The records of an order as the shop sends them, each of them seen after what came of it."""
    new = new_order(given)
    at = ACCEPTED + after
    trail.keep(MAIL, sent(new, "EmailNewOrder", MAIL), at + 30)
    approved = sent(new, "FraudDetector", APPROVED)
    trail.keep(APPROVED, approved, at + 20, order_id=order_id)
    trail.keep(NEW, new, at + 10, order_id=order_id)
    return approved


def shown(timeline: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(h["service"], h["topic"], h["afterMs"], h["repeat"]) for h in timeline["hops"]]


WAY = [
    ("OrderController", NEW, 10, None),
    ("FraudDetector", APPROVED, 20, None),
    ("EmailNewOrder", MAIL, 30, None),
]


def test_a_timeline_is_all_that_came_of_an_order_in_the_order_of_time(
    api: Api, trail: Trail
) -> None:
    api.accept("o1")
    way(trail, "another")
    approved = way(trail, "o1")
    timeline = api.timeline("o1")
    assert shown(timeline) == WAY
    assert (timeline["orderId"], timeline["cut"]) == ("o1", False)
    assert timeline["acceptedAt"] == "2023-11-14T22:13:20Z"
    decided = timeline["hops"][1]
    assert decided["correlationId"] == approved
    assert decided["traceId"] == "a" * 32
    assert (decided["partition"], decided["offset"], decided["type"]) == (0, 1, "T")
    assert "ana@" not in str(timeline)


def test_an_order_of_which_no_record_has_come_yet_has_no_hops(api: Api) -> None:
    api.accept("o1")
    assert api.timeline("o1")["hops"] == []


def test_an_order_that_only_the_topics_know_is_counted_from_its_first_record(
    api: Api, trail: Trail
) -> None:
    way(trail, "o1")
    timeline = api.timeline("o1")
    assert timeline["acceptedAt"] is None
    assert [hop["afterMs"] for hop in timeline["hops"]] == [0, 10, 20]


@pytest.mark.parametrize("order_id", ["nobody", "%00", "a%2Fb", "x" * 5000])
def test_an_order_that_nobody_knows_is_a_404(api: Api, order_id: str) -> None:
    answer = api.client.get(f"/orders/{order_id}/timeline")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_repeats_are_marked_as_the_same_event_or_the_same_order(api: Api, trail: Trail) -> None:
    new = new_order()
    trail.keep(NEW, new, 10, order_id="o1", event_id="e1")
    trail.keep(NEW, new, 20, order_id="o1", event_id="e1")
    again = new_order()
    trail.keep(NEW, again, 30, order_id="o1")
    trail.keep(MAIL, sent(again, "EmailNewOrder", MAIL), 40)
    assert shown(api.timeline("o1")) == [
        ("OrderController", NEW, 0, None),
        ("OrderController", NEW, 10, "event"),
        ("OrderController", NEW, 20, "order"),
        ("EmailNewOrder", MAIL, 30, None),
    ]


def test_orders_whose_correlation_ids_begin_alike_stay_apart(api: Api, trail: Trail) -> None:
    api.accept("o2")
    first = way(trail, "o1")
    way(trail, "o2", given=first)
    assert shown(api.timeline("o2")) == WAY
    assert len(api.timeline("o1")["hops"]) == 3


def test_an_order_without_an_id_is_found_by_the_correlation_id_it_is_known_by(
    api: Api, trail: Trail
) -> None:
    new = new_order()
    trail.keep(NEW, new, 10)
    trail.keep(APPROVED, sent(new, "FraudDetector", APPROVED), 20, order_id=new)
    assert [hop["topic"] for hop in api.timeline(new)["hops"]] == [NEW, APPROVED]


def test_a_timeline_is_bounded_and_says_so(api: Api, trail: Trail) -> None:
    trail.keep(NEW, new_order(), order_id="o1", copies=MOST + 1)
    timeline = api.timeline("o1")
    assert (len(timeline["hops"]), timeline["cut"]) == (MOST, True)


def test_the_drawing_shows_what_came_of_what(api: Api, trail: Trail) -> None:
    api.accept("o1")
    way(trail, "o1")
    timeline = api.timeline("o1")
    assert drawing(timeline, "http://traces/{trace_id}") == [
        "o1  accepted 2023-11-14T22:13:20Z",
        f"+10 ms  └─ OrderController -> {NEW}[0]@0",
        f"+20 ms     ├─ FraudDetector -> {APPROVED}[0]@0",
        f"+30 ms     └─ EmailNewOrder -> {MAIL}[0]@0",
        f"trace http://traces/{'a' * 32}",
    ]


def test_the_drawing_of_a_long_timeline_shows_every_hop(api: Api, trail: Trail) -> None:
    trail.keep(NEW, new_order(), order_id="o1", copies=MOST + 1)
    lines = drawing(api.timeline("o1"), "")
    assert sum("->" in line for line in lines) == MOST
    assert "there are more, which are not shown" in lines
