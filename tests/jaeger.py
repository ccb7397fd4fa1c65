"""A real Jaeger, built once from its Go module, with the configuration in otel/."""

import os
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from shop.broker import free_port
from tests.go_programs import JAEGER
from tests.waiting import eventually

CONFIGURATION = Path(__file__).parent.parent / "otel" / "jaeger.yml"
PORTS = ("OTLP_GRPC", "OTLP_HTTP", "QUERY", "QUERY_GRPC", "HEALTH", "METRICS")


@contextmanager
def jaeger(directory: Path) -> Iterator["Jaeger"]:
    ports = {name: free_port() for name in PORTS}
    variables = {f"JAEGER_{name}_PORT": str(port) for name, port in ports.items()}
    program = JAEGER.path()
    with (directory / "jaeger.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--config", CONFIGURATION],
            env=os.environ | variables,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{ports['QUERY']}", timeout=60) as client:
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
