"""A real Jaeger, built once from its Go module, with the configuration in otel/."""

import fcntl
import json
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from shop.broker import free_port
from shop.broker.classpath import default_cache
from tests.waiting import eventually

VERSION = "v1.76.0"
CONFIGURATION = Path(__file__).parent.parent / "otel" / "jaeger.yml"
PORTS = ("OTLP_GRPC", "OTLP_HTTP", "QUERY", "QUERY_GRPC", "HEALTH", "METRICS")


def binary() -> Path:
    """Builds it where it is not in the cache: some minutes, 1 GB of sources."""
    folder = default_cache() / f"jaeger-{VERSION}"
    program = folder / "jaeger"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be at it
        if not program.exists():
            _build(folder, program)
    return program


def _build(folder: Path, program: Path) -> None:
    if shutil.which("go") is None:
        why = "a real Jaeger is built from its Go module, and there is no Go here: install Go"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    module = f"github.com/jaegertracing/jaeger@{VERSION}"
    told = _go("mod", "download", "-json", module, folder=folder)
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(json.loads(told)["Dir"], source)  # the module cache is read-only
    for path in (source, *source.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    _go("build", "-o", f"{program}.new", "./cmd/jaeger", folder=source)
    Path(f"{program}.new").rename(program)
    shutil.rmtree(source)


def _go(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        ["go", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"go {' '.join(arguments)}: {done.stdout[-500:]}{done.stderr}"
    return done.stdout


@contextmanager
def jaeger(directory: Path) -> Iterator["Jaeger"]:
    ports = {name: free_port() for name in PORTS}
    variables = {f"JAEGER_{name}_PORT": str(port) for name, port in ports.items()}
    program = binary()
    with (directory / "jaeger.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--config", CONFIGURATION],
            env=os.environ | variables,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{ports['QUERY']}", timeout=10) as client:
                found = Jaeger(client, f"http://127.0.0.1:{ports['OTLP_HTTP']}")
                eventually(found.answers, "Jaeger")
                yield found
        finally:
            process.kill()  # asked to end it takes seconds, and has nothing to keep
            process.wait()


@dataclass
class Span:
    """As Jaeger's query API tells of it."""

    id: str
    trace_id: str
    service: str
    name: str
    tags: Mapping[str, Any]
    parent: str | None
    links: list[tuple[str, str]]
    started: int  # microseconds since the epoch
    children: list["Span"] = field(default_factory=list)

    @classmethod
    def of(cls, told: Mapping[str, Any], processes: Mapping[str, Any]) -> Self:
        parents = [r["spanID"] for r in told["references"] if r["refType"] == "CHILD_OF"]
        links = [r for r in told["references"] if r["refType"] != "CHILD_OF"]
        return cls(
            told["spanID"],
            told["traceID"],
            processes[told["processID"]]["serviceName"],
            told["operationName"],
            {tag["key"]: tag["value"] for tag in told["tags"]},
            parents[0] if parents else None,
            [(link["traceID"], link["spanID"]) for link in links],
            told["startTime"],
        )

    @property
    def title(self) -> str:
        """Its name; of a group's with the group."""
        group = self.tags.get("messaging.consumer.group.name")
        shown = f"{self.name} ({group})" if group and group not in self.name else self.name
        outcome = self.tags.get("listener.outcome", "handled")
        return shown if outcome == "handled" else f"{shown} {outcome}"


class Jaeger:
    def __init__(self, client: httpx.Client, otlp: str) -> None:
        self._client = client
        self.otlp = otlp

    def answers(self) -> bool:
        try:
            return self._client.get("/api/services").is_success
        except httpx.TransportError:
            return False

    def spans(self, trace_id: str) -> list[Span]:
        answer = self._client.get(f"/api/traces/{trace_id}")
        if answer.status_code == 404:
            return []
        assert answer.is_success, answer.text
        (found,) = answer.json()["data"]
        return [Span.of(span, found["processes"]) for span in found["spans"]]


def roots(spans: Iterable[Span]) -> list[Span]:
    """Those without a parent among them, each with its children, in the order of their titles."""
    by_id = {span.id: span for span in spans}
    below = defaultdict(list)
    for span in by_id.values():
        below[span.parent if span.parent in by_id else None].append(span)
    for span in by_id.values():
        span.children = sorted(below[span.id], key=lambda child: child.title)
    return sorted(below[None], key=lambda span: span.title)


def drawn(spans: Iterable[Span], indent: str = "") -> list[str]:
    """A line for each of the trees, services in brackets."""
    lines = []
    for span in spans:
        lines += [f"{indent}{span.title} [{span.service}]", *drawn(span.children, indent + "  ")]
    return lines


if __name__ == "__main__":
    print(binary())
