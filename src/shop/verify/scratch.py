"""What an audit remembers while it reads: a temporary SQLite file, so that memory stays flat
however many records there are.

Names (event ids, order ids) become keys of at most 41 bytes. What begins with the time, as our ids
do, stays in that order, so that a row goes next to the one before it.
"""

import re
import sqlite3
import tempfile
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

CACHE_KB = 64_000

_UUID = re.compile(r"\A[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_LONGEST = 40  # bytes of a text that is kept as it is

_TABLES = """
CREATE TABLE record (  -- the first of each event on a topic
    topic INTEGER, event BLOB, subject BLOB, name BLOB, partition INTEGER, offset INTEGER,
    PRIMARY KEY (topic, event)) WITHOUT ROWID;
CREATE TABLE expected (  -- what a handled record must have sent; `in_turn`: not redriven
    hop INTEGER, event BLOB, subject BLOB, partition INTEGER, offset INTEGER, at INTEGER,
    in_turn INTEGER, PRIMARY KEY (hop, event)) WITHOUT ROWID;
CREATE TABLE passed_over (  -- by a group whose records another program may have handled
    hop INTEGER, subject BLOB, partition INTEGER, offset INTEGER);
CREATE TABLE accepted (  -- what the API has answered for
    topic INTEGER, subject BLOB, at INTEGER, PRIMARY KEY (topic, subject)) WITHOUT ROWID;
CREATE TABLE waiting (  -- in an outbox
    topic INTEGER, event BLOB, subject BLOB);
CREATE TABLE letter (
    consumer_group TEXT, topic TEXT, partition INTEGER, offset INTEGER,
    PRIMARY KEY (consumer_group, topic, partition, offset)) WITHOUT ROWID;
CREATE TABLE redrive (  -- of a letter, as its database tells
    letter BLOB, topic INTEGER, at INTEGER);
CREATE TABLE sent_again (  -- a redriven record, on a topic or in an outbox
    topic INTEGER, letter BLOB);
CREATE TABLE mail (id BLOB PRIMARY KEY, copies INTEGER) WITHOUT ROWID;
CREATE TABLE told (finding TEXT, subject BLOB, PRIMARY KEY (finding, subject)) WITHOUT ROWID;
"""


class Scratch:
    """For one thread; gone when its block ends."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="shop-verify-")
        path = Path(self._folder.name) / "scratch.db"
        self._connection = sqlite3.connect(path, isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KB}"):
            self._connection.execute(f"PRAGMA {setting}")
        self._connection.executescript(_TABLES)
        self._connection.execute("BEGIN")
        self._topics: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._folder.cleanup()

    def topic(self, name: str) -> int:
        """The number that stands for a topic."""
        return self._topics.setdefault(name, len(self._topics))

    def insert(self, table: str, rows: Sequence[Sequence[Any]]) -> int:
        """Insert those rows that are not there; how many were not."""
        if not rows:
            return 0
        values = ", ".join("?" * len(rows[0]))
        statement = f"INSERT OR IGNORE INTO {table} VALUES ({values})"
        return self._connection.executemany(statement, rows).rowcount

    def index(self) -> None:
        """For the questions that come when all is read."""
        self._connection.execute("CREATE INDEX record_by_subject ON record (topic, subject)")
        self._connection.execute("CREATE INDEX waiting_by_subject ON waiting (topic, subject)")
        self._connection.execute("CREATE INDEX waiting_by_event ON waiting (event)")
        self._connection.execute("CREATE INDEX sent_again_by_letter ON sent_again (topic, letter)")

    def rows(self, query: str, values: Sequence[Any] = ()) -> Iterable[Any]:
        return self._connection.execute(query, values)

    def one(self, query: str, values: Sequence[Any] = ()) -> Any:
        return self._connection.execute(query, values).fetchone()

    def first_told(self, finding: str, subject: bytes) -> bool:
        """Whether this is the first time that the finding is told of the subject."""
        return self.insert("told", [(finding, subject)]) == 1


def key(text: str) -> bytes:
    """What stands for a name. The same for the same, and `name_of` reads it back where it can."""
    if _UUID.match(text):
        return b"u" + bytes.fromhex(text.replace("-", ""))
    written = text.encode("utf-8", "surrogatepass")
    if len(written) <= _LONGEST:
        return b"=" + written
    return b"#" + blake2b(written, digest_size=16).digest()


def name_of(key: bytes | None) -> str | None:
    """The name again; None where it was too long to be kept."""
    if not key or key[:1] == b"#":
        return None
    if key[:1] == b"u":
        return str(UUID(bytes=key[1:]))
    return key[1:].decode("utf-8", "replace")


def short(value: bytes | None) -> bytes | None:
    """Stands for a record's key."""
    return None if value is None else blake2b(value, digest_size=8).digest()
