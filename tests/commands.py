"""The commands of `shop` in a test: within this process, or as processes of their own."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

from typer.testing import CliRunner

from shop.broker import EmbeddedKafka, free_port
from shop.child import READY_FD
from shop.cli import app
from shop.cli.errors import report
from shop.kafka.admin import create_topics
from shop.kafka.connection import Connection
from shop.topics import ALL
from tests.backends import environment_of_databases


class Said(NamedTuple):
    """What a command said, and its exit code."""

    stdout: str
    stderr: str
    code: int


class ShopPlace:
    """A broker of its own with all topics of the shop, and a data directory."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self._broker = EmbeddedKafka(directory / "kafka", port=free_port(), fast=True)
        self._broker.start()
        self.kafka = Connection(self._broker.bootstrap_servers)
        create_topics(self.kafka, ALL)

    def close(self) -> None:
        self._broker.stop()

    def run(self, *arguments: str, stdin: str = "") -> Said:
        return run(self.kafka, self.data, *arguments, stdin=stdin)

    def tail(self, topic: str, *options: str) -> list[dict[str, Any]]:
        """The records that `shop topics tail --json` shows."""
        said = self.run("topics", "tail", topic, "--json", *options)
        assert said.code == 0, said.stderr
        return [json.loads(line) for line in said.stdout.splitlines()]

    @contextmanager
    def running(self, *command: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """`shop COMMAND` as a process that is ready; stopped at the end, drained."""
        ready, says_ready = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "shop.cli", *command],
            env=environment(self.kafka, self.data) | variables | {READY_FD: str(says_ready)},
            pass_fds=[says_ready],
        )
        os.close(says_ready)
        try:
            with os.fdopen(ready, "rb") as pipe:
                assert pipe.readline() == b"ready\n", "it ended before it was ready"
            yield process
        finally:
            process.terminate()
            assert process.wait(30) == 0


def run(kafka: Connection, data: Path, *arguments: str, stdin: str = "") -> Said:
    """`shop ARGUMENTS`, within this process."""
    result: Any = CliRunner().invoke(app, arguments, env=_settings(kafka, data), input=stdin)
    error = result.exception
    if error is None or isinstance(error, SystemExit):
        return Said(result.stdout, result.stderr, result.exit_code)
    said = io.StringIO()
    with redirect_stderr(said):
        code = report(error)
    return Said(result.stdout, said.getvalue(), code)


def environment(kafka: Connection, data: Path) -> dict[str, str]:
    """What a process of the shop gets."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SHOP_", "OTEL_"))}
    return inherited | _settings(kafka, data)


def _settings(kafka: Connection, data: Path) -> dict[str, str]:
    return {
        "SHOP_DATA_DIR": str(data),
        "SHOP_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "SHOP_KAFKA__SESSION_TIMEOUT_MS": "6000",
        **environment_of_databases(),
    }
