"""`python -m shop.broker.jars`: download and verify the jars now, for example in an image.
`python -m shop.broker.jars --lock`: resolve them anew and write `jars.lock`."""

import argparse
import sys
import tempfile
from pathlib import Path

from jgo.maven import MavenContext

from shop.broker.classpath import LOCK_FILE, ClassPath, default_cache, sha256_of
from shop.broker.errors import BrokerError
from shop.broker.progress import terminal_progress

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
# Kafka logs through slf4j-api 1.7, and brings log4j-core but no binding of the two. This one is
# resolved apart, and without what it depends on: in one resolution with Kafka, log4j's
# dependency management would replace Kafka's own versions.
LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"


def lock() -> str:
    """The text of a lock file for KAFKA and LOG_BINDING, resolved now."""
    lines = [f"# {KAFKA} by python -m shop.broker.jars --lock: coordinate, bytes, SHA-256"]
    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch))
        inputs, transitive = context.resolver.resolve([context.create_dependency(KAFKA)])
        needed = [d.artifact for d in transitive if d.scope in ("compile", "runtime")]
        binding = context.create_dependency(LOG_BINDING).artifact
        for artifact in [*(d.artifact for d in inputs), *needed, binding]:
            jar = artifact.resolve()
            coordinate = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
            lines.append(f"{coordinate} {jar.stat().st_size} {sha256_of(jar)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m shop.broker.jars", description=__doc__)
    parser.add_argument("--lock", action="store_true", help="write the lock file anew")
    if parser.parse_args().lock:
        LOCK_FILE.write_text(lock())
        print(LOCK_FILE)
        return
    class_path = ClassPath(default_cache())
    try:
        with terminal_progress() as progress:
            class_path.ensure(progress)
    except (BrokerError, OSError) as error:
        sys.exit(str(error))
    print(class_path.folder)


if __name__ == "__main__":
    main()
