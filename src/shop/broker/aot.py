"""`python -m shop.broker.aot CACHE`: train the start-up cache (JEP 483) of the jars in CACHE.

It takes a short life of a broker, on a scratch directory and free ports, and some seconds of one
core. `EmbeddedKafka.start` runs it beside a broker, at the lowest priority, as long as there is
no such cache; one that is killed half-way leaves nothing that would be used.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from shop.broker.classpath import ClassPath
from shop.broker.embedded import EmbeddedKafka
from shop.broker.errors import BrokerError
from shop.broker.jvm import RECORD
from shop.broker.locks import acquire
from shop.broker.ports import free_port


def train(cache: Path) -> None:
    """Return when the cache is there, or another process is making it. A failure is written
    beside it, and keeps others from trying again. Raises OSError."""
    class_path = ClassPath(cache)
    class_path.ensure()
    lock = acquire(class_path.folder / "aot.lock")
    if lock is None:
        return
    try:
        for leftover in class_path.folder.glob(".training-*"):
            shutil.rmtree(leftover)
        if class_path.aot.exists():
            return
        with tempfile.TemporaryDirectory(dir=class_path.folder, prefix=".training-") as scratch:
            made = Path(scratch) / "made.aot"
            kafka = EmbeddedKafka(
                Path(scratch) / "kafka",
                port=free_port(),
                cache=cache,
                jvm_options=(f"{RECORD}{made}",),
            )
            kafka.start(timeout=300)
            kafka.stop(timeout=300)
            made.replace(class_path.aot)
    except (BrokerError, FileNotFoundError) as error:
        class_path.aot.with_suffix(".failed").write_text(f"{error}\n")
    finally:
        os.close(lock)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
