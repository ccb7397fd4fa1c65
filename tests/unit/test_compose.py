"""docker-compose.yml and the Dockerfile, held against the shop. No container is started."""

import importlib.resources
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import click
import httpx
import jsonschema
import pytest
import typer
import yaml
from docker.runtime_lock import EMBEDDED_KAFKA, runtime, selected
from packaging.requirements import Requirement

from shop.broker.config import server_properties
from shop.broker.storage import Node
from shop.cli import app
from shop.health import Checks, health_api
from shop.http.app import create_app
from shop.http.server import HttpServer
from shop.settings import load_settings
from shop.watch import HealthServer, Watch

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("shop:")]
KAFKA = [name for name in SERVICES if name.startswith("kafka-")]
ENDING = {"topics", "shop"}  # they do one thing and end


def environment(service: str) -> dict[str, str]:
    return {name: str(value) for name, value in SERVICES[service].get("environment", {}).items()}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of secrets as docker/secrets.sh makes it."""
    place = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "docker", place / "docker")
    subprocess.run(["sh", "docker/secrets.sh"], cwd=place, check=True, capture_output=True)
    return place / "secrets"


def test_the_file_is_valid_by_the_compose_specification() -> None:
    vendored = importlib.resources.files("check_jsonschema.builtin_schemas") / "vendor"
    schema = json.loads((vendored / "compose-spec.json").read_text())

    jsonschema.validate(COMPOSE, schema)


def test_what_depends_on_is_there_and_has_the_health_it_is_asked_for() -> None:
    for service in SERVICES.values():
        for name, wanted in dict(_conditions(service)).items():
            healthy = "test" in SERVICES[name].get("healthcheck", {})
            assert wanted != "service_healthy" or healthy
            assert wanted != "service_completed_successfully" or name in ENDING


def _conditions(service: dict[str, Any]) -> Iterator[tuple[str, str]]:
    needs = service.get("depends_on", {})
    for name in needs:
        yield name, needs[name]["condition"] if isinstance(needs, dict) else "service_started"


@pytest.mark.parametrize("service", OURS)
def test_the_settings_of_each_process_are_taken(
    service: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("SHOP_")]:
        monkeypatch.delenv(name)
    for name, value in environment(service).items():
        monkeypatch.setenv(name, value)

    settings = load_settings(secrets / "shop.toml")

    assert settings.admin_token is not None
    assert settings.kafka.bootstrap_servers.split(",") == [f"{name}:19092" for name in KAFKA]
    assert settings.database.url.get_secret_value().endswith("@postgres/shop")
    assert (settings.smtp.host, settings.smtp.port) == ("mailpit", 1025)
    if service == "api":
        assert settings.health.listeners_url == "http://listeners:8081/health/ready"


@pytest.mark.parametrize("service", [name for name in OURS if "command" in SERVICES[name]])
def test_the_command_line_of_each_process_is_one_of_shop(service: str) -> None:
    program, *arguments = [*SERVICES[service]["entrypoint"], *SERVICES[service]["command"]]

    assert program == "shop"
    _parse(typer.main.get_command(app), "shop", arguments, None)


def _parse(
    command: click.Command, name: str, arguments: list[str], parent: click.Context | None
) -> None:
    """Raises UsageError for what `command` would refuse; runs nothing."""
    context = command.make_context(name, list(arguments), parent=parent)
    if isinstance(command, click.Group):
        left = [*context._protected_args, *context.args]
        found, subcommand, rest = command.resolve_command(context, left)
        assert subcommand is not None
        _parse(subcommand, found or "", rest, context)


def test_every_file_that_is_mounted_is_there(secrets: Path) -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), source
            else:
                assert source in COMPOSE["volumes"]
    for secret in COMPOSE["secrets"].values():
        assert (secrets.parent / secret["file"]).read_text().strip()


def test_the_secrets_differ_stay_and_are_kept_out_of_git(secrets: Path) -> None:
    before = {file.name: file.read_text() for file in secrets.iterdir()}
    subprocess.run(["sh", "docker/secrets.sh"], cwd=secrets.parent, check=True, capture_output=True)

    assert {file.name: file.read_text() for file in secrets.iterdir()} == before
    assert before["postgres_password"] in before["shop.toml"]
    assert len(set(before.values())) == len(before)
    assert before[".gitignore"] == "*\n"
    assert secrets.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("service", SERVICES)
def test_each_container_has_no_more_rights_than_it_needs(service: str) -> None:
    of = SERVICES[service]
    limits = of["deploy"]["resources"]["limits"]

    assert of["cap_drop"] == ["ALL"]
    assert of["security_opt"] == ["no-new-privileges:true"]
    assert int(of["user"].split(":")[0]) > 0
    assert of.get("read_only", service in KAFKA) is True
    assert {"memory", "cpus", "pids"} <= set(limits)
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+[\w.-]*", of["image"]), "pinned by a tag, without host"
    assert all(port.startswith("127.0.0.1:") for port in of.get("ports", []))
    assert of["restart"] == {"topics": "on-failure:5", "shop": "no"}.get(service, "unless-stopped")
    # The collector's image has nothing that could ask.
    assert "test" in of["healthcheck"] if service not in ENDING | {"collector"} else True


def test_no_secret_is_in_the_file() -> None:
    for service in SERVICES:
        for name, value in environment(service).items():
            if re.search("PASSWORD|TOKEN|SECRET", name):
                assert value.removeprefix("/run/secrets/") in SERVICES[service]["secrets"]
            assert not re.search("://[^/]*@", value)


def test_the_image_is_built_once() -> None:
    assert [name for name in SERVICES if "build" in SERVICES[name]] == ["api"]
    assert {SERVICES[name]["image"] for name in OURS} == {SERVICES["api"]["image"]}


def test_no_port_of_the_host_is_used_twice() -> None:
    ports = [port.split(":")[1] for of in SERVICES.values() for port in of.get("ports", [])]

    assert len(ports) == len(set(ports))


def test_the_three_brokers_keep_records_as_the_embedded_three_do() -> None:
    nodes = [
        Node(id=n, port=9000 + n, controller_port=9100 + n, folder=Path(str(n))) for n in (1, 2, 3)
    ]
    embedded = dict(line.split("=", 1) for line in server_properties(nodes[0], nodes).splitlines())
    its_own = {"broker.session.timeout.ms", "broker.heartbeat.interval.ms"}  # one machine, no net
    where = ("node.", "listeners", "advertised.", "listener.", "controller.", "log.dirs")

    for name in KAFKA:
        of = environment(name)
        for setting, value in embedded.items():
            if setting not in its_own and not setting.startswith(where):
                assert of["KAFKA_" + setting.replace(".", "_").upper()] == value, setting
        assert f"INTERNAL://{name}:19092" in of["KAFKA_ADVERTISED_LISTENERS"]
        assert f"{of['KAFKA_NODE_ID']}@{name}:19093" in of["KAFKA_CONTROLLER_QUORUM_VOTERS"]
        host_port = SERVICES[name]["ports"][0].split(":")[1]
        assert of["KAFKA_ADVERTISED_LISTENERS"].endswith(f"HOST://127.0.0.1:{host_port}")
    assert len({environment(name)["CLUSTER_ID"] for name in KAFKA}) == 1


class Group:
    """A container as far as Watch asks it."""

    group = "fraud"

    def __init__(self) -> None:
        self.trouble: str | None = None

    def stalled(self, _after: float) -> str | None:
        return None


def probe(service: str, port: int) -> int:
    """The exit code of a service's health check, asked of a port here."""
    _cmd, _python, *arguments = SERVICES[service]["healthcheck"]["test"]
    own = environment(service)["SHOP_HTTP__PORT" if service == "api" else "SHOP_HEALTH__PORT"]
    here = [argument.replace(f"127.0.0.1:{own}/", f"127.0.0.1:{port}/") for argument in arguments]
    assert here != arguments
    return subprocess.run([sys.executable, *here], capture_output=True).returncode


def test_the_health_check_of_the_listeners_is_what_their_groups_say() -> None:
    group = Group()
    server = HealthServer("127.0.0.1", 0, Watch([group], 10))  # type: ignore[list-item]
    port = server._server.server_address[1]

    assert probe("listeners", port) == 0
    group.trouble = "the mail server is away"
    assert probe("listeners", port) != 0
    server.close()
    assert probe("listeners", port) != 0


def test_the_health_check_of_the_api_is_its_readiness() -> None:
    trouble: list[str] = []
    checks = Checks({"orders database": lambda: trouble[0] if trouble else None})
    server = HttpServer(create_app(health_api(checks)), port=0)
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(ready.set,))
    thread.start()
    assert ready.wait(20)

    assert probe("api", server.port) == 0
    trouble.append("away")
    assert probe("api", server.port) != 0
    # The image's own, where no one says another.
    address = re.search(r"http://127\.0\.0\.1:8080(\S+)'", (ROOT / "Dockerfile").read_text())
    assert address
    assert httpx.get(f"http://127.0.0.1:{server.port}{address[1]}").status_code == 200
    server.stop()
    thread.join(20)


def test_prometheus_scrapes_ports_that_processes_answer_at() -> None:
    config = yaml.safe_load((ROOT / "otel/prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    processes = {"api", "listeners"}

    for service in processes:
        (where,) = jobs[f"shop-{service}"]["dns_sd_configs"]
        assert where["names"] == [service]
        assert str(where["port"]) == environment(service)["SHOP_HEALTH__PORT"]
        assert environment(service)["SHOP_HEALTH__HOST"] == "0.0.0.0"
    for service in ("collector", "jaeger"):
        own = (ROOT / f"otel/{service}.yml").read_text()
        port = re.search(rf"{service.upper()}_METRICS_PORT:-(\d+)", own)
        assert port
        assert jobs[service]["static_configs"] == [{"targets": [f"{service}:{port[1]}"]}]


def test_spans_go_from_the_shop_to_the_collector_to_jaeger() -> None:
    collector = yaml.safe_load((ROOT / "otel/collector.yml").read_text())
    jaeger = yaml.safe_load((ROOT / "otel/jaeger.yml").read_text())
    takes = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    passed_on = jaeger["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]

    assert environment("api")["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert takes.endswith(":-4318}")
    assert environment("collector")["COLLECTOR_JAEGER"] == "jaeger:4317"
    assert passed_on.endswith(":-4317}")


def test_the_image_gets_what_the_shop_needs_to_run_and_no_more() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    entries = re.split(r"^(?=[a-z0-9])", selected(lock, runtime(project)), flags=re.MULTILINE)[1:]
    pinned = [Requirement(entry.split("\\")[0]) for entry in entries]
    names = {pin.name for pin in pinned}

    assert all("--hash=sha256:" in entry for entry in entries)
    assert not names & (EMBEDDED_KAFKA | {"pytest", "mypy", "ruff", "hypothesis"})
    for name in (pin.name for pin in pinned if _applies(pin)):
        for needed in filter(_applies, map(Requirement, requires(name) or [])):
            assert re.sub(r"[._-]+", "-", needed.name).lower() in names, f"{name}: {needed}"


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})
