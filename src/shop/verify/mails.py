"""The mails that the embedded mail server has kept, by the event ids in their Message-IDs."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from shop.email.message import message_id
from shop.verify.report import Example, Kind, Notes
from shop.verify.scratch import Scratch, key, name_of

# A crash repeats the mail that was being sent, and may do so again: more than that is no crash.
MOST_COPIES = 3
_HEAD = 8192  # bytes in which the headers of our mails end

_MESSAGE_ID = re.compile(rb"^Message-ID: <([^@>]+)@", re.MULTILINE)
_ADVICE = "see the log of the listeners for why group email sends it again and again"


def read_mails(directory: Path, scratch: Scratch) -> None:
    """Without a list of all files: there may be millions."""
    for id_ in _message_ids(directory):
        if not scratch.insert("mail", [(id_, 1)]):
            scratch.rows("UPDATE mail SET copies = copies + 1 WHERE id = ?", [id_])


def mail_of(event_id: str) -> bytes:
    """What stands for the mail of an event, whoever its sender was."""
    return key(message_id(event_id, "@")[1:].partition("@")[0])


def check_copies(scratch: Scratch, notes: Notes) -> None:
    repeated = "SELECT id, copies FROM mail WHERE copies > 1"
    for id_, copies in scratch.rows(repeated):
        if copies <= MOST_COPIES:
            notes.remark("mails sent again after a crash, as is allowed", "group email")
            continue
        example = Example(event_id=name_of(id_), detail=f"{copies} times")
        notes.found(Kind.DUPLICATED, "mails", "group email", _ADVICE, example)


def _message_ids(directory: Path) -> Iterator[bytes]:
    for folder in ("new", "cur"):  # in the way that a mail goes
        with suppress(FileNotFoundError), os.scandir(directory / folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError), Path(entry.path).open("rb") as mail:
                    found = _MESSAGE_ID.search(mail.read(_HEAD))
                    if found:
                        yield key(found[1].decode("ascii", "replace"))
