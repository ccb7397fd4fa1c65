"""The start-up cache of the JVM (JEP 483), which halves the time of a start: making it."""

import os
import subprocess
import sys
from pathlib import Path

from shop.broker.classpath import ClassPath
from shop.broker.process import spawn


class Trainer:
    """Runs `python -m shop.broker.aot` beside a broker, at the lowest priority, when there is no
    start-up cache yet: the first start is not slower for it, and the next ones are faster. It
    ends with its owner, at once, as the broker does."""

    def __init__(self, cache: Path, class_path: ClassPath) -> None:
        self._cache = cache
        self._class_path = class_path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Does nothing when the cache is there, or could not be made before."""
        made = self._class_path.aot
        if self._process or made.exists() or made.with_suffix(".failed").exists():
            return
        folder = self._class_path.folder
        with Path(os.devnull).open("wb") as no_lock:
            self._process = spawn(
                ["nice", "-n", "19", sys.executable, "-m", "shop.broker.aot", str(self._cache)],
                folder=folder,
                pid_file=folder / "aot.pid",
                console=folder / "aot.log",
                lock=no_lock.fileno(),
                environment=os.environ,
                grace=0,
            )

    def stop(self) -> None:
        """Give up what is not finished."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process = None
