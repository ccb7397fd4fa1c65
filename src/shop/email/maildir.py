"""Mails as files of one directory, a Maildir: processes write and read it without locks."""

import email
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from pathlib import Path
from uuid import uuid4


def create(directory: Path) -> None:
    """Make the Maildir, unless it is there. Raises OSError."""
    for name in ("tmp", "new", "cur"):
        (directory / name).mkdir(parents=True, exist_ok=True)


def deliver(directory: Path, content: bytes) -> Path:
    """Put a mail into a Maildir; it is on the disk when this returns. Raises OSError."""
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    name = f"{seconds}.M{nanos // 1000:06d}P{os.getpid()}R{uuid4().hex}.shop"
    draft, mail = directory / "tmp" / name, directory / "new" / name
    try:
        with draft.open("xb") as file:
            file.write(content.replace(b"\r\n", b"\n"))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(mail)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(mail.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name too
    finally:
        os.close(folder)
    return mail


@dataclass(frozen=True, slots=True)
class MailOnDisk:
    """A kept mail; a header that it does not have is empty."""

    path: Path
    message_id: str
    to: str
    correlation_id: str
    subject: str
    text: str


def mails(directory: Path) -> Iterator[MailOnDisk]:
    """The mails of a Maildir, oldest first, as of the call; what vanishes meanwhile is left out."""
    found = [entry for name in ("new", "cur") for entry in _entries(directory / name)]
    for path in sorted(found, key=lambda path: path.name):
        with suppress(FileNotFoundError):
            yield _read(path)


def _entries(directory: Path) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return []


def _read(path: Path) -> MailOnDisk:
    message = email.message_from_bytes(path.read_bytes())
    headers = {name.lower(): _unfolded(value) for name, value in message.raw_items()}
    return MailOnDisk(
        path,
        headers.get("message-id", ""),
        headers.get("to", ""),
        _decoded(headers.get("x-correlation-id", "")),
        _decoded(headers.get("subject", "")),
        _text(message),
    )


def _unfolded(value: str) -> str:
    raw = value.replace("\n ", " ").encode("ascii", "surrogateescape")
    return raw.decode("utf-8", "replace").strip()


def _decoded(value: str) -> str:
    if "=?" not in value:
        return value
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, ValueError):
        return value  # somebody else's mail


def _text(message: Message) -> str:
    for part in message.walk():
        if part.get_content_type() == "text/plain":
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            try:
                text = payload.decode(part.get_content_charset("utf-8"), "replace")
            except LookupError:
                text = payload.decode("utf-8", "replace")
            return text.replace("\r\n", "\n").removesuffix("\n")
    return ""
