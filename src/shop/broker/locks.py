"""File locks (flock), which end with the processes that hold them, however those end."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def acquire(path: Path, wait: float | None = 0.0) -> int | None:
    """Take the lock at `path` (made if absent) within `wait` seconds (None: for as long as it
    takes). Returns a file descriptor, or None when another process has it.

    The lock lasts until every copy of the descriptor is closed: a child that inherits one keeps
    the lock after its parent has closed its own.
    """
    deadline = None if wait is None else time.monotonic() + wait
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            flags = fcntl.LOCK_EX if deadline is None else fcntl.LOCK_EX | fcntl.LOCK_NB
            fcntl.flock(descriptor, flags)
            if _is_at(descriptor, path):
                return descriptor
            os.close(descriptor)  # deleted while we waited: lock the one that is there now
        except BlockingIOError:
            os.close(descriptor)
            if deadline is None or time.monotonic() >= deadline:
                return None
            time.sleep(0.02)
        except BaseException:
            os.close(descriptor)
            raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock at `path` for the block, after waiting for it as long as it takes."""
    descriptor = acquire(path, wait=None)
    assert descriptor is not None
    try:
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock at `path`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
