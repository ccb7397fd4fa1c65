"""The report files: DIRECTORY/<first two characters>/<name>.txt and .html."""

import fcntl
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from shop.kafka.errors import StoreUnavailable
from shop.kafka.ids import derived_id

_UUID = re.compile(r"\A[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def file_name(uuid: str) -> str:
    """The name of a user's files: the uuid, or for any other text one derived from it."""
    return uuid if _UUID.match(uuid) else f"odd-{derived_id('', uuid)}"


class ReportFiles:
    """Thread-safe, and several processes may write to one directory.

    A file is there whole or not at all, also after a power failure: it is written and flushed in a
    folder of this process's own and then renamed. The folder of a process that died is swept away
    when another begins to write."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._own = directory / ".writing"
        self._lock = threading.Lock()
        self._claimed: tuple[Path, int] | None = None  # this process's folder, and the lock on it

    def write(self, name: str, contents: Mapping[str, str]) -> None:
        """Replace the files of a name, by their suffixes; durable when this returns. Raises
        StoreUnavailable when they cannot be written now: the disk is full, or the like."""
        folder = self.directory / name[:2]
        own = None
        try:
            own = self._folder()
            written = {
                _flushed(own / f"{threading.get_ident()}{suffix}", content): suffix
                for suffix, content in contents.items()
            }
            folder.mkdir(exist_ok=True)
            for path, suffix in written.items():
                path.replace(folder / f"{name}{suffix}")
            _flush_names(folder)
        except OSError as error:
            self._give_up(own)
            why = error.strerror or error
            raise StoreUnavailable(f"reports cannot be written to {folder}: {why}") from error

    def read(self, name: str, suffix: str) -> str | None:
        """The newest content of a file, None when there is none."""
        try:
            return (self.directory / name[:2] / f"{name}{suffix}").read_text("utf-8")
        except FileNotFoundError:
            return None

    def _folder(self) -> Path:
        with self._lock:
            if self._claimed is None:
                self._own.mkdir(parents=True, exist_ok=True)
                with (self._own / "lock").open("w") as turn:
                    fcntl.flock(turn, fcntl.LOCK_EX)
                    self._sweep()
                    folder = Path(tempfile.mkdtemp(dir=self._own))
                    self._claimed = folder, _lock_of(folder)
            return self._claimed[0]

    def _sweep(self) -> None:
        """Remove the folders that nobody holds the lock of: a lock ends with its process."""
        for folder in self._own.iterdir():
            if not folder.is_dir():
                continue
            try:
                os.close(_lock_of(folder))
            except BlockingIOError:
                continue
            shutil.rmtree(folder)

    def _give_up(self, own: Path | None) -> None:
        """That folder may be what is wrong: somebody removed it, or its disk is gone."""
        with self._lock:
            if self._claimed is not None and self._claimed[0] == own:
                folder, lock = self._claimed
                self._claimed = None
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _lock_of(folder: Path) -> int:
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _flushed(path: Path, content: str) -> Path:
    with path.open("wb") as file:
        file.write(content.encode("utf-8", "replace"))
        file.flush()
        os.fsync(file.fileno())
    return path


def _flush_names(folder: Path) -> None:
    """A rename is on disk when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
