"""A group whose processes end in the middle of a cooperative rebalance."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.groups import describe_groups
from shop.kafka.listener import listener
from shop.kafka.membership import resumable
from shop.kafka.template import KafkaTemplate
from shop.kafka.topic import Topic
from shop.kafka.wire import EnvelopeCodec
from tests.waiting import eventually

TEXT = EnvelopeCodec[str]({"java.lang.String": str})

# Two members with names; the first dies when it is to give a partition to the second.
HALF_WAY = """
    import os, sys, threading
    from confluent_kafka import Consumer

    servers, group, topic = sys.argv[1:]
    joined = threading.Event()

    def member(number):
        consumer = Consumer({
            "bootstrap.servers": servers, "group.id": group, "session.timeout.ms": 6000,
            "group.instance.id": f"only-{group}-{number}", "enable.auto.commit": False,
            "partition.assignment.strategy": "cooperative-sticky",
        })
        def assigned(consumer, partitions):
            consumer.incremental_assign(partitions)
            joined.set()
        consumer.subscribe([topic], on_assign=assigned, on_revoke=lambda *_: os._exit(0))
        while True:
            consumer.poll(0.1)

    threading.Thread(target=member, args=(0,)).start()
    joined.wait()
    member(1)
"""


def end_half_way(kafka: Connection, group: str, topic: Topic[Any]) -> None:
    program = textwrap.dedent(HALF_WAY)
    arguments = [kafka.bootstrap_servers, group, topic.name]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, timeout=60)


def test_a_group_left_half_way_is_joined_anew_and_every_partition_is_read(
    kafka: Connection, template: KafkaTemplate, make_topic: Callable[..., Topic[str]],
    listen: Callable[..., ListenerContainer], group: str,
) -> None:  # fmt: skip
    topic = make_topic(TEXT, partitions=2)
    end_half_way(kafka, group, topic)
    (state,) = describe_groups(kafka, [group])
    assert (state.state, len(state.members)) == ("stable", 2)
    assert len({p for member in state.members for p in member.partitions}) == 1, "one is nobody's"

    assert resumable(kafka, {group: [topic]}) == set()

    seen: list[str] = []

    @listener(topic, group=group, concurrency=2)
    def on(text: str) -> None:
        seen.append(text)

    listen(on)
    for number in range(20):
        template.send(topic, str(number), str(number))
    eventually(lambda: sorted(seen, key=int) == [str(number) for number in range(20)])


def test_a_group_that_owns_all_or_is_new_comes_back_under_its_names(
    kafka: Connection, make_topic: Callable[..., Topic[str]],
    listen: Callable[..., ListenerContainer], group: str,
) -> None:  # fmt: skip
    topic = make_topic(TEXT, partitions=2)
    assert resumable(kafka, {group: [topic]}) == {group}

    @listener(topic, group=group, concurrency=2)
    def on(_: str) -> None:
        pass

    container = listen(on, instance="only")
    eventually(lambda: all(m.partitions for m in describe_groups(kafka, [group])[0].members))
    assert container.stop(30)

    assert describe_groups(kafka, [group])[0].members, "they left no word that they go"
    assert resumable(kafka, {group: [topic]}) == {group}
