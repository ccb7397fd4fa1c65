"""Partitions held back until their topics are recognised."""

from collections.abc import Sequence

from confluent_kafka import TopicPartition

from shop.kafka.errors import BrokerUnreachable
from shop.kafka.recognition import Recognition
from shop.kafka.store import Partition


class Client:
    """Notes which partitions may be read."""

    def __init__(self) -> None:
        self.readable: set[Partition] = set()

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.readable.update(Partition(p.topic, p.partition) for p in partitions)

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.readable.difference_update(Partition(p.topic, p.partition) for p in partitions)


def test_a_topic_that_cannot_be_recognised_holds_back_itself_alone_and_is_told() -> None:
    gone = {"A"}

    def recognise(topics: Sequence[str]) -> None:
        if gone.intersection(topics):
            raise BrokerUnreachable("no answer")

    client, recognition = Client(), Recognition(lambda _: "earliest", recognise)
    recognition.assigned(client, [TopicPartition("A", 0), TopicPartition("B", 0)])
    assert client.readable == set()

    recognition.release(client)

    assert client.readable == {Partition("B", 0)}
    assert Partition("A", 0) in recognition
    assert Partition("B", 0) not in recognition
    assert recognition.trouble == "topic A is not recognised yet: no answer"

    gone.clear()
    recognition._due = 0.0
    recognition.release(client)

    assert client.readable == {Partition("A", 0), Partition("B", 0)}
    assert recognition.trouble is None


def test_without_anything_to_recognise_all_may_be_read_at_once() -> None:
    client, recognition = Client(), Recognition(lambda _: "earliest", None)
    recognition.assigned(client, [TopicPartition("A", 0)])
    assert client.readable == {Partition("A", 0)}
