"""All measurements, one after the other: `make bench`, or `python -m bench listener fraud`."""

import sys

from bench import (
    audit,
    fanout,
    fraud,
    harness,
    http,
    listener,
    metrics,
    reports,
    running,
    sending,
    tracing,
)

ALL = {
    "listener": listener,
    "metrics": metrics,
    "tracing": tracing,
    "audit": audit,
    "fraud": fraud,
    "fanout": fanout,
    "http": http,
    "reports": reports,
    "running": running,
    "sending": sending,
}

names = sys.argv[1:] or list(ALL)
unknown = [name for name in names if name not in ALL]
if unknown:
    sys.exit(f"no measurement {', '.join(unknown)}; there are {', '.join(ALL)}")
for name in names:
    ALL[name].main()
if harness.missed:
    sys.exit("\n".join(["", "Not reached on this machine, now:", *harness.missed]))
