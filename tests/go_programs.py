"""Programs that tests need and that are to be had as Go modules: built once, kept in the cache."""

import fcntl
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from shop.broker.classpath import default_cache


@dataclass(frozen=True)
class GoProgram:
    module: str
    version: str
    package: str  # in the module; its last part is the program's name
    tags: str = ""

    def path(self) -> Path:
        """Builds it where it is not in the cache: some minutes. Fails in CI, and skips elsewhere,
        where there is no Go."""
        name = Path(self.package).name
        folder = default_cache() / f"{name}-{self.version}"
        program = folder / name
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be at it
            if not program.exists():
                self._build(folder, program)
        return program

    def _build(self, folder: Path, program: Path) -> None:
        if shutil.which("go") is None:
            why = (
                f"a real {program.name} is built from its Go module, and there is no Go: install it"
            )
            if os.environ.get("CI"):
                pytest.fail(why)
            pytest.skip(why)
        told = _go("mod", "download", "-json", f"{self.module}@{self.version}", folder=folder)
        source = folder / "source"
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(json.loads(told)["Dir"], source)  # the module cache is read-only
        for path in (source, *source.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        made = ("-o", f"{program}.new", f"./{self.package}")
        _go("build", f"-tags={self.tags}", *made, folder=source)
        Path(f"{program}.new").rename(program)
        shutil.rmtree(source)


def _go(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        ["go", *arguments],
        cwd=folder,
        env=os.environ | {"GOWORK": "off"},  # a workspace names modules that are not in this one
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"go {' '.join(arguments)}: {done.stdout[-500:]}{done.stderr}"
    return done.stdout


JAEGER = GoProgram("github.com/jaegertracing/jaeger", "v1.76.0", "cmd/jaeger")
PROMTOOL = GoProgram(
    # Of all the ways to discover what is to be scraped, the one that otel/prometheus.yml names.
    "github.com/prometheus/prometheus", "v0.313.2", "cmd/promtool", "remove_all_sd,enable_dns_sd"
)  # fmt: skip

if __name__ == "__main__":
    for each in (JAEGER, PROMTOOL):
        print(each.path())
