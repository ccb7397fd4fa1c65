import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from shop.broker import BrokerError, EmbeddedKafka, free_port
from shop.cli.supervised_broker import Broker
from shop.supervisor import Supervisor
from tests.waiting import eventually


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A running broker; a test that takes it down starts it again."""
    directory = tmp_path_factory.mktemp("broker") / "kafka"
    with EmbeddedKafka(directory, port=free_port(), fast=True) as broker:
        yield broker


def admin(kafka: EmbeddedKafka) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})


def create(kafka: EmbeddedKafka, topic: str) -> None:
    client = admin(kafka)  # kept alive until the result is there
    client.create_topics([NewTopic(topic, 1)])[topic].result(60)


def produce(kafka: EmbeddedKafka, topic: str, value: bytes) -> None:
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    producer.produce(topic, value, callback=lambda error, _record: errors.append(error))
    producer.flush(15)
    assert errors == [None]


def first_record(kafka: EmbeddedKafka, topic: str) -> bytes | None:
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "test", "log_level": 0}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    (record,) = consumer.consume(1, 15)
    consumer.close()
    value = record.value()
    assert value is None or isinstance(value, bytes)
    return value


def in_another_process(script: str, directory: Path) -> "subprocess.Popen[str]":
    code = f"import sys; from pathlib import Path; from shop.broker import *\n{script}"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE, text=True
    )


def said_by(script: str, directory: Path) -> str:
    output, _ = in_another_process(script, directory).communicate(timeout=60)
    return output.strip()


def test_a_started_broker_answers_and_makes_no_topic_unasked(kafka: EmbeddedKafka) -> None:
    metadata = admin(kafka).list_topics(timeout=60)
    assert list(metadata.brokers) == [1]
    assert kafka.running
    assert kafka.poll() is None
    admin(kafka).list_topics("misspelt", timeout=60)
    assert "misspelt" not in admin(kafka).list_topics(timeout=60).topics


def test_a_record_outlives_kill_9_and_the_next_start(kafka: EmbeddedKafka) -> None:
    create(kafka, "orders")
    produce(kafka, "orders", b"an order")
    kafka.kill()
    assert kafka.poll() == 128 + signal.SIGKILL
    kafka.start()
    assert kafka.poll() is None
    assert first_record(kafka, "orders") == b"an order"


def test_a_second_owner_is_refused(kafka: EmbeddedKafka) -> None:
    refused = said_by(
        "try: EmbeddedKafka(Path(sys.argv[1]), port=free_port()).start()\n"
        "except BrokerError as error: print(error)",
        kafka.directory,
    )
    pid = kafka.status().nodes[0].pid
    assert f"already runs in {kafka.directory} (pid {pid})" in refused
    assert kafka.status().answers


def test_a_broker_dies_with_its_owner_even_when_that_is_killed(tmp_path: Path) -> None:
    owner = in_another_process(
        "kafka = EmbeddedKafka(Path(sys.argv[1]), port=free_port(), fast=True); kafka.start()\n"
        "print('up', flush=True); sys.stdin.read()",
        tmp_path,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    kafka = EmbeddedKafka(tmp_path)
    pid = kafka.status().nodes[0].pid
    assert pid is not None
    owner.kill()
    owner.communicate()
    eventually(lambda: not kafka.running and not psutil.pid_exists(pid))
    assert not [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(process.info["cmdline"] or ())
    ]


def test_ctrl_c_in_the_owners_terminal_leaves_the_broker_running(kafka: EmbeddedKafka) -> None:
    pid = kafka.status().nodes[0].pid
    assert pid is not None
    assert os.getsid(pid) != os.getsid(0)


def test_a_detached_broker_is_seen_and_stopped_by_other_processes(tmp_path: Path) -> None:
    port = free_port()
    start = f"EmbeddedKafka(Path(sys.argv[1]), port={port}, fast=True).start(detached=True)"
    say = "print(EmbeddedKafka(Path(sys.argv[1])).status().bootstrap_servers)"
    try:
        said_by(start, tmp_path)
        status = EmbeddedKafka(tmp_path).status()
        assert status.running
        assert status.answers
        assert said_by(say, tmp_path) == f"127.0.0.1:{port}"
        said_by("EmbeddedKafka(Path(sys.argv[1])).stop()", tmp_path)
        assert not EmbeddedKafka(tmp_path).running
    finally:
        EmbeddedKafka(tmp_path).kill()


def test_data_outlives_a_change_of_port_and_is_gone_after_a_wipe(tmp_path: Path) -> None:
    directory = tmp_path / "kafka"
    with EmbeddedKafka(directory, port=free_port(), fast=True) as kafka:
        create(kafka, "orders")
    with EmbeddedKafka(directory, port=free_port(), fast=True) as moved:
        assert "orders" in admin(moved).list_topics(timeout=60).topics
        with pytest.raises(BrokerError, match="already runs"):
            moved.wipe()
    said_by("EmbeddedKafka(Path(sys.argv[1])).wipe()", directory)
    assert not directory.exists()


def test_a_jvm_that_dies_at_start_is_reported_with_its_words_and_its_log(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path, port=free_port(), jvm_options=["-XX:NoSuchOption"])
    with pytest.raises(BrokerError, match=r"ended while starting, exit code 1: .*NoSuchOption"):
        kafka.start()
    assert not kafka.running


def test_a_broker_that_is_not_up_in_time_is_taken_down_again(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path, port=free_port(), fast=True)
    with pytest.raises(BrokerError, match=r"did not answer on port \d+ within 0 s"):
        kafka.start(timeout=0)
    assert not kafka.running


def test_of_three_nodes_those_that_die_are_started_again_by_themselves(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path, port=free_port(3), nodes=3, fast=True)
    said: list[str] = []
    supervisor = Supervisor([Broker(kafka)], said.append)
    supervisor.start()
    try:
        create(kafka, "orders")
        topic = ConfigResource(ResourceType.TOPIC, "orders")
        client = admin(kafka)
        config = client.describe_configs([topic])[topic].result(60)
        assert config["min.insync.replicas"].value == "2"
        replicas = client.list_topics(timeout=60).topics["orders"].partitions[0].replicas
        assert sorted(replicas) == [1, 2, 3]

        kafka.kill(node=2)
        assert kafka.ended() == {2: 128 + signal.SIGKILL}
        assert [node.answers for node in kafka.status().nodes] == [True, False, True]
        produce(kafka, "orders", b"an order")
        supervisor.check()
        assert "kafka node 2 ended with exit code 137 (SIGKILL)" in said[0]
        eventually(lambda: supervisor.check() or not kafka.ended())
        kafka.kill(node=3)  # while the other one is just starting
        eventually(
            lambda: supervisor.check() or (not supervisor.starting and kafka.status().answers)
        )
        assert "kafka node 3" in said[1]
        assert first_record(kafka, "orders") == b"an order"
    finally:
        supervisor.stop()
    assert not kafka.running


def test_of_a_detached_cluster_what_has_died_is_started_again_and_left_running(
    tmp_path: Path,
) -> None:
    port = free_port(3)
    start = f"EmbeddedKafka(Path(sys.argv[1]), port={port}, nodes=3, fast=True)"
    said_by(f"{start}.start(detached=True)", tmp_path)
    kafka = EmbeddedKafka(tmp_path, port=port, nodes=3, fast=True)
    said: list[str] = []
    supervisor = Supervisor([Broker(kafka)], said.append)
    try:
        supervisor.start()
        kafka.kill(node=1)
        assert kafka.ended() == {1: None}
        supervisor.check()
        assert said == ["kafka node 1 ended; starting it again in 0.2 s"]
        eventually(lambda: supervisor.check() or (not kafka.ended() and kafka.status().answers))
        supervisor.stop()
        assert len(kafka.pids()) == 3
    finally:
        kafka.kill()
