import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from shop.broker import BrokerError, EmbeddedKafka, free_port, terminal_progress
from shop.broker.classpath import ClassPath, read_lock
from shop.broker.config import server_properties
from shop.broker.jvm import cause
from shop.broker.locks import acquire, is_held
from shop.broker.ports import brokers_seen, is_free
from shop.broker.process import spawn
from shop.broker.storage import Cluster, Node, needs_format, nodes_of

JAR = b"PK a jar"


class Repository(ThreadingHTTPServer):
    """A Maven repository that serves `content` for every path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = JAR
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        jar = self.path.endswith(".jar")
        if jar:
            self.server.asked.append(self.path)
        self.send_response(200 if jar else 404)
        self.send_header("Content-Length", str(len(self.server.content) if jar else 0))
        self.end_headers()
        if jar:
            self.wfile.write(self.server.content)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    server = Repository()
    configure_jgo(tmp_path, monkeypatch, server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def configure_jgo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    config = tmp_path / "jgo.conf"
    config.write_text(f"[repositories]\ncentral = http://127.0.0.1:{port}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(config))
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def class_path(tmp_path: Path) -> ClassPath:
    lock = tmp_path / "jars.lock"
    lock.write_text(f"# a comment\norg.x:a:1 {len(JAR)} {hashlib.sha256(JAR).hexdigest()}\n")
    return ClassPath(tmp_path / "cache", lock)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (made,) = nodes_of(tmp_path, 9092, 1)
    made.folder.mkdir()
    return made


def test_every_locked_jar_has_a_sha256_and_kafka_comes_first() -> None:
    jars = read_lock()
    assert jars[0].name == "kafka_2.13-4.3.1.jar"
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in jars)
    assert len({jar.name for jar in jars}) == len(jars)


def test_jars_come_from_the_repository_that_jgo_is_configured_for(
    repository: Repository, class_path: ClassPath
) -> None:
    class_path.ensure()
    assert repository.asked == ["/org/x/a/1/a-1.jar"]
    assert Path(str(class_path)).read_bytes() == JAR


def test_a_verified_jar_is_not_asked_for_again(
    repository: Repository, class_path: ClassPath
) -> None:
    class_path.ensure()
    class_path.ensure()
    assert len(repository.asked) == 1


@pytest.mark.parametrize("content", [JAR[:-1], b"PK evil!"], ids=["truncated", "tampered"])
def test_a_changed_jar_is_found_and_downloaded_again(
    repository: Repository, class_path: ClassPath, content: bytes
) -> None:
    class_path.ensure()
    Path(str(class_path)).write_bytes(content)
    class_path.ensure()
    assert Path(str(class_path)).read_bytes() == JAR
    assert len(repository.asked) == 2


def test_a_repository_that_serves_another_jar_is_named_as_the_cause(
    repository: Repository, class_path: ClassPath
) -> None:
    repository.content = b"PK evil!"
    with pytest.raises(BrokerError, match=r"a-1\.jar was downloaded twice .*do not use it"):
        class_path.ensure()
    assert not Path(str(class_path)).exists()


def test_two_that_start_at_once_download_once(
    repository: Repository, class_path: ClassPath
) -> None:
    threads = [threading.Thread(target=class_path.ensure) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(repository.asked) == 1


def test_no_network_at_the_first_start_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_jgo(tmp_path, monkeypatch, free_port())
    kafka = EmbeddedKafka(tmp_path / "kafka", port=free_port(), cache=tmp_path / "cache")
    with pytest.raises(BrokerError, match=r"cannot download kafka_2\.13-4\.3\.1\.jar") as raised:
        kafka.start()
    assert "needs the network once" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not kafka.running


def test_a_taken_port_is_named_before_anything_is_started(tmp_path: Path) -> None:
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(BrokerError, match=rf"port {port} .* is taken.*choose another port"),
    ):
        EmbeddedKafka(tmp_path / "kafka", port=port, cache=tmp_path / "cache").start()
    assert not (tmp_path / "cache").exists()


def test_a_server_that_is_not_kafka_does_not_count_as_an_answer(repository: Repository) -> None:
    assert brokers_seen(repository.server_port) == 0


def test_free_ports_are_free_for_all_brokers_and_controllers() -> None:
    port = free_port(nodes=3)
    assert all(is_free(candidate) for candidate in range(port, port + 6))


def test_a_stale_pid_file_is_no_obstacle_and_its_process_is_left_alone(
    tmp_path: Path, node: Node
) -> None:
    node.pid_file.write_text(str(os.getpid()))
    kafka = EmbeddedKafka(tmp_path)
    kafka.stop()
    kafka.kill()
    assert not kafka.running
    assert kafka.status().nodes[0].pid is None
    kafka.wipe()
    assert not tmp_path.exists()


def test_a_second_owner_is_refused_and_told_of_the_first(tmp_path: Path, node: Node) -> None:
    lock = acquire(node.lock)
    assert lock is not None
    node.pid_file.write_text("4711")
    kafka = EmbeddedKafka(tmp_path, port=free_port())
    with pytest.raises(BrokerError, match=r"already runs in .*pid 4711"):
        kafka.start()
    with pytest.raises(BrokerError, match="already runs"):
        kafka.wipe()
    os.close(lock)
    assert not kafka.running


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerError, match=r"cannot use .*file.*choose another directory"):
        EmbeddedKafka(tmp_path / "file" / "kafka", port=free_port()).start()


def test_where_it_is_not_installed_an_error_says_what_else_can_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jgo.config", None)  # what an import finds then
    kafka = EmbeddedKafka(tmp_path / "kafka", port=free_port(), cache=tmp_path / "cache")
    with pytest.raises(BrokerError, match=r"jgo.* not installed.*SHOP_KAFKA__BOOTSTRAP_SERVERS"):
        kafka.start()


def test_a_format_that_did_not_finish_is_cleared_away(node: Node) -> None:
    for folder in (node.data, node.formatting):
        (folder / "__cluster_metadata-0").mkdir(parents=True)
        (folder / "__cluster_metadata-0" / "0.log").touch()
    assert needs_format(node)
    assert not node.data.exists()
    assert not node.formatting.exists()


def test_records_without_meta_properties_are_not_deleted(node: Node) -> None:
    segment = node.data / "orders-0" / "00000000000000000000.log"
    segment.parent.mkdir(parents=True)
    segment.write_bytes(b"a record")
    with pytest.raises(BrokerError, match=r"holds records, but its meta\.properties .*restore"):
        needs_format(node)
    assert segment.exists()


def test_formatted_data_is_left_as_it_is(node: Node) -> None:
    (node.data / "__cluster_metadata-0").mkdir(parents=True)
    (node.data / "meta.properties").write_text("version=1\n")
    assert not needs_format(node)


def test_a_cluster_remembers_its_ids_and_its_last_port(tmp_path: Path) -> None:
    first = Cluster.open(tmp_path, 9092, 1)
    second = Cluster.open(tmp_path, 9192, 1)
    assert second.cluster_id == first.cluster_id
    assert second.directory_ids == first.directory_ids
    assert EmbeddedKafka(tmp_path).status().bootstrap_servers == "127.0.0.1:9192"


@pytest.mark.parametrize(("port", "nodes"), [(9092, 1), (9192, 3)])
def test_a_cluster_keeps_its_size_and_its_ports(tmp_path: Path, port: int, nodes: int) -> None:
    Cluster.open(tmp_path, 9092, 3)
    with pytest.raises(BrokerError, match="was made for"):
        Cluster.open(tmp_path, port, nodes)


def test_wipe_leaves_files_that_are_not_ours(tmp_path: Path, node: Node) -> None:
    Cluster.open(tmp_path, 9092, 1)
    (tmp_path / "notes.txt").write_text("mine")
    EmbeddedKafka(tmp_path).wipe()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def properties(nodes: int, flush: bool = True) -> dict[str, str]:
    cluster = nodes_of(Path("/nowhere"), 9092, nodes)
    text = server_properties(cluster[-1], cluster, flush=flush)
    return dict(line.split("=", 1) for line in text.splitlines())


def test_a_single_node_listens_on_loopback_only_and_keeps_records_for_ever() -> None:
    told = properties(1)
    assert told["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert told["log.retention.ms"] == "-1"
    assert told["auto.create.topics.enable"] == "false"
    assert told["log.flush.interval.messages"] == "1"
    assert (told["offsets.topic.replication.factor"], told["min.insync.replicas"]) == ("1", "1")


def test_three_nodes_replicate_and_know_all_controllers() -> None:
    told = properties(3, flush=False)
    assert told["listeners"] == "PLAINTEXT://127.0.0.1:9094,CONTROLLER://127.0.0.1:9097"
    assert told["controller.quorum.bootstrap.servers"].count(",") == 2
    assert (told["offsets.topic.replication.factor"], told["min.insync.replicas"]) == ("3", "2")
    assert "log.flush.interval.messages" not in told


def test_the_line_with_the_error_is_taken_for_the_cause_of_a_death() -> None:
    assert cause("INFO up\nERROR no space left\n\tat Some.java\nINFO down") == "ERROR no space left"


def run_guarded(node: Node, script: str, grace: int | None) -> subprocess.Popen[bytes]:
    node.console.parent.mkdir()
    lock = acquire(node.lock)
    assert lock is not None
    process = spawn(
        ["/bin/sh", "-c", script],
        folder=node.folder,
        pid_file=node.pid_file,
        console=node.console,
        lock=lock,
        environment=os.environ,
        grace=grace,
    )
    os.close(lock)
    return process


def test_a_process_ends_when_its_owner_lets_go_of_it(node: Node) -> None:
    process = run_guarded(node, "exec sleep 600", grace=10)
    assert is_held(node.lock)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait() == 128 + signal.SIGTERM
    assert not is_held(node.lock)


def test_a_process_that_will_not_end_is_killed(node: Node) -> None:
    process = run_guarded(node, "trap '' TERM; while :; do sleep 600; done", grace=0)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait() == -signal.SIGKILL


def test_the_lock_is_free_as_soon_as_its_process_has_ended(node: Node) -> None:
    process = run_guarded(node, "exit 3", grace=10)
    assert process.wait() == 3
    assert not is_held(node.lock)


def test_off_a_terminal_progress_is_one_line_per_step() -> None:
    output = io.StringIO()
    with terminal_progress(Console(file=output)) as progress:
        for done in range(3):
            progress("downloading", done * 1_000_000, 2_000_000)
    assert output.getvalue() == "downloading (2 MB) ...\n"
