"""Quix's Kafka clients without the rest of Quix Streams: docs/decisions/0003.

`import quixstreams` runs every dataframe, sink and serializer on the way: 40 MB and most of a
second in each process, and a deprecation notice of a library behind it. The clients need none of
that. So the two packages around them are put in place unexecuted while the clients are imported,
and taken away again: who imports quixstreams later gets the real one.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _unexecuted(*packages: str) -> Iterator[None]:
    placed = []
    for name in packages:
        if name not in sys.modules:
            spec = importlib.util.find_spec(name)
            if spec is None:
                raise ModuleNotFoundError(f"{name} is not installed", name=name)
            sys.modules[name] = importlib.util.module_from_spec(spec)
            placed.append(name)
    try:
        yield
    finally:
        for name in placed:
            del sys.modules[name]


with _unexecuted("quixstreams", "quixstreams.models"):
    from quixstreams.exceptions import QuixException
    from quixstreams.kafka import ConnectionConfig, Consumer, Producer

__all__ = ["ConnectionConfig", "Consumer", "Producer", "QuixException"]
