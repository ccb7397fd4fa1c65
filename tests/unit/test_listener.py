from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from shop.events import Order
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.errors import ListenerDeclarationError
from shop.kafka.listener import ListenerRegistry, listener
from shop.kafka.topic import Topic, TopicPattern
from shop.kafka.wire import Message
from shop.topics import NEW_ORDER, SEND_EMAIL


class Work:
    """A unit of work of some store."""


ORDER = Order(order_id="1", amount=Decimal(1), email="a@b")
MESSAGE = Message(ORDER, "a@b", "T", 0, 5, 1, "event", "C", None, [])


def endpoint_of(service: Any, work_type: type | None = Work) -> Any:
    registry = ListenerRegistry()
    registry.add(service)
    (group,) = registry.groups
    (endpoint,) = registry.endpoints(group, work_type)
    return endpoint


def test_a_marked_method_stays_a_plain_method() -> None:
    class Service:
        @listener(NEW_ORDER, group="g")
        def on(self, order: Order) -> str:
            return order.email

    assert Service().on(ORDER) == "a@b"


def test_parameters_are_given_by_their_annotations_in_any_order() -> None:
    seen: list[Any] = []

    @listener(NEW_ORDER, group="g")
    def on(ack: Acknowledgment, m: Message[Order], order: Order, work: Work) -> None:
        seen.extend([m, order, work])
        ack.acknowledge()

    work = Work()
    assert endpoint_of(on)(MESSAGE, work, Acknowledgment()) is True
    assert seen == [MESSAGE, ORDER, work]


def test_who_takes_no_acknowledgment_has_acknowledged_by_returning() -> None:
    @listener(NEW_ORDER, group="g")
    def plain(_order: Order) -> None: ...

    @listener(NEW_ORDER, group="g")
    def silent(_order: Order, _ack: Acknowledgment) -> None: ...

    assert endpoint_of(plain)(MESSAGE, None, Acknowledgment()) is True
    assert endpoint_of(silent)(MESSAGE, None, Acknowledgment()) is False


def wrong_event() -> Any:
    @listener(NEW_ORDER, group="g")
    def on(text: str) -> None: ...

    return on


def wrong_message() -> Any:
    @listener(NEW_ORDER, group="g")
    def on(message: Message[str]) -> None: ...

    return on


def no_annotation() -> Any:
    @listener(NEW_ORDER, group="g")
    def on(order) -> None: ...  # type: ignore[no-untyped-def]

    return on


def a_star() -> Any:
    @listener(NEW_ORDER, group="g")
    def on(*orders: Order) -> None: ...

    return on


def twice() -> Any:
    @listener(NEW_ORDER, group="g")
    def on(a: Order, b: Order) -> None: ...

    return on


def two_topics_of_different_events() -> Any:
    @listener(NEW_ORDER, SEND_EMAIL, group="g")
    def on(order: Order) -> None: ...

    return on


def a_coroutine() -> Any:
    @listener(NEW_ORDER, group="g")
    async def on(order: Order) -> None: ...

    return on


def external_with_work() -> Any:
    @listener(NEW_ORDER, group="g", external=True)
    def on(order: Order, work: Work) -> None: ...

    return on


def no_event() -> Any:
    @listener(NEW_ORDER, group="g")
    def on(ack: Acknowledgment) -> None: ...

    return on


@pytest.mark.parametrize(
    ("declare", "hint"),
    [
        (wrong_event, "is annotated str; it can be Order"),
        (wrong_message, r"is Message\[str\], but ECOMMERCE_NEW_ORDER carries Order"),
        (no_annotation, "has no annotation"),
        (a_star, "name its parameters"),
        (twice, "takes event twice"),
        (two_topics_of_different_events, "ECOMMERCE_SEND_EMAIL carries"),
        (a_coroutine, "is async"),
        (external_with_work, "take no unit of work"),
        (no_event, "takes no event"),
    ],
)
def test_a_wrong_declaration_is_refused_with_a_hint(declare: Callable[[], Any], hint: str) -> None:
    with pytest.raises(ListenerDeclarationError, match=hint):
        endpoint_of(declare())


def test_a_unit_of_work_needs_a_store() -> None:
    @listener(NEW_ORDER, group="g")
    def on(order: Order, work: Work) -> None: ...

    with pytest.raises(ListenerDeclarationError, match="this group has no store"):
        endpoint_of(on, work_type=None)


@pytest.mark.parametrize(
    ("declare", "hint"),
    [
        (lambda: listener(group="g"), "needs a topic"),
        (lambda: listener("ECOMMERCE_NEW_ORDER", group="g"), "takes Topic objects"),
        (lambda: listener(NEW_ORDER, group=" "), "needs a group"),
        (lambda: listener(NEW_ORDER, group="g", concurrency=0), "1 or more"),
    ],
)
def test_a_wrong_option_is_refused_where_it_is_written(
    declare: Callable[[], Any], hint: str
) -> None:
    with pytest.raises(ListenerDeclarationError, match=hint):
        declare()


def test_two_listeners_of_a_group_cannot_take_one_topic() -> None:
    class Service:
        @listener(NEW_ORDER, group="g")
        def one(self, order: Order) -> None: ...

        @listener(NEW_ORDER, group="g")
        def two(self, order: Order) -> None: ...

    registry = ListenerRegistry()
    registry.add(Service())
    with pytest.raises(ListenerDeclarationError, match="one record, one listener"):
        registry.endpoints("g")


def test_an_unknown_group_is_answered_with_those_there_are() -> None:
    registry = ListenerRegistry()
    registry.add(wrong_event())
    with pytest.raises(ListenerDeclarationError, match="no group 'fraudd'; there are: g"):
        registry.endpoints("fraudd")


def test_a_service_without_listeners_is_refused() -> None:
    with pytest.raises(ListenerDeclarationError, match="Work has no method marked"):
        ListenerRegistry().add(Work())


def test_a_service_is_built_only_when_its_group_is_started() -> None:
    built: list[str] = []

    class Service:
        @listener(NEW_ORDER, group="g")
        def on(self, order: Order) -> None: ...

    def build() -> Service:
        built.append("once")
        return Service()

    registry = ListenerRegistry()
    registry.add(Service, build)
    assert registry.groups == ["g"]
    assert built == []
    registry.endpoints("g")
    registry.endpoints("g")
    assert built == ["once"]


@pytest.mark.parametrize("name", ["", "a b", "x" * 250, "a\n"])
def test_a_topic_name_that_kafka_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a Kafka topic name"):
        Topic(name, NEW_ORDER.codec)


def test_a_pattern_matches_whole_names() -> None:
    pattern = TopicPattern("ECOMMERCE.*", NEW_ORDER.codec)
    assert pattern.matches("ECOMMERCE_NEW_ORDER")
    assert not pattern.matches("X_ECOMMERCE")
    assert pattern.name == "^ECOMMERCE.*$"
