"""The audit: databases first, then outboxes, then topics.

In this order nothing that is on its way looks lost: what a database says was written together with
an outbox row, which either is still there when the outboxes are read, or is on its topic when the
topics are read.
"""

import time
from collections.abc import Mapping, Sequence

from sqlalchemy.exc import DBAPIError

from shop.containers import Shop
from shop.db.database import Database
from shop.kafka.admin import topic_ids
from shop.kafka.dispatch import Incoming
from shop.kafka.errors import KafkaError
from shop.kafka.offsets import Bounds, log_bounds
from shop.kafka.store import Partition
from shop.settings import Settings
from shop.topics import (
    DEADLETTER,
    NEW_ORDER,
    ORDER_APPROVED,
    ORDER_REJECTED,
    PIX,
    SEND_EMAIL,
    SEND_MESSAGE_TO_ALL_USERS,
    USER_GENERATE_READING_REPORT,
)
from shop.verify.accepted import check_accepted, read_accepted
from shop.verify.events import Events
from shop.verify.fan_outs import check_fan_outs, read_fan_outs
from shop.verify.groups import Group, decoded, groups_of
from shop.verify.hops import subject_of
from shop.verify.horizons import Horizons
from shop.verify.letters import Letters
from shop.verify.mails import check_copies, read_mails
from shop.verify.outboxes import PATIENCE_S, check_outboxes, databases_of, waiting_records
from shop.verify.positions import (
    check_committed,
    check_positions,
    committed_before,
    made_anew,
    partitions_of,
)
from shop.verify.redrives import check_redrives, note_sent_again, read_redrives
from shop.verify.report import Notes, Report
from shop.verify.scan import Scan
from shop.verify.scratch import Scratch, key
from shop.verify.trail import check_trail

TOPICS = (
    NEW_ORDER,
    ORDER_APPROVED,
    ORDER_REJECTED,
    SEND_EMAIL,
    SEND_MESSAGE_TO_ALL_USERS,
    USER_GENERATE_READING_REPORT,
    PIX,
    DEADLETTER,
)

ANSWER_S = 3.0  # for a broker to answer at all
LEADER_S = 5.0  # and to be sure of being the leader


class CannotLook(Exception):
    """There is nothing to audit, or it cannot be read; the message is one line."""


def audit(settings: Settings, *, since: int | None = None, patience: float = PATIENCE_S) -> Report:
    """Audit the shop of these settings, running or stopped; its brokers must run.

    `since`: only what came at that time or later, milliseconds since the epoch. `patience`: seconds
    in which an outbox must move. Raises KafkaError, StoreUnavailable among it, and CannotLook."""
    began = time.monotonic()
    shop = Shop(settings=settings)
    try:
        databases = databases_of(shop.databases())
        if not databases:
            raise CannotLook(_nothing_there(settings))
        notes = Notes()
        with Scratch() as scratch:
            look = _Look(shop, databases, scratch, notes, since)
            records = look.take()
        check_outboxes(databases, notes, patience)
    except DBAPIError as error:
        why = " ".join(str(error.orig).split())
        raise CannotLook(
            f"a database cannot be read as this program would: {why}; start the shop once, which "
            "brings databases to their newest schema"
        ) from error
    finally:
        shop.databases().close()
    return Report(notes.findings, notes.remarks, records, time.monotonic() - began)


def _nothing_there(settings: Settings) -> str:
    if settings.database.url.get_secret_value():
        return "no shop has ever run on the database that SHOP_DATABASE__URL names"
    where = settings.data_dir.absolute()
    return f"no shop has ever run in {where}; SHOP_DATA_DIR names another place"


class _Look:
    """One audit."""

    def __init__(
        self,
        shop: Shop,
        databases: Mapping[str, Database],
        scratch: Scratch,
        notes: Notes,
        since: int | None,
    ) -> None:
        settings = shop.settings()
        self._connection = shop.connection()
        self._registry = shop.registry()
        self._databases = databases
        self._scratch = scratch
        self._notes = notes
        self._since = since
        self._horizons = Horizons(since or 0, notes)
        self._letters = Letters(scratch, notes)
        self._mail = settings.data_dir / "mail"
        self._mails_are_kept = not settings.smtp.host and self._mail.is_dir()

    def take(self) -> int:
        """How many records were read."""
        self._connection.metadata(ANSWER_S)
        before = self._bounds(groups_of(self._registry, {}))
        committed = committed_before(self._connection)
        groups = groups_of(self._registry, self._databases)
        fan_outs = read_fan_outs(self._databases.get("users"))
        read_accepted(self._databases, self._scratch)
        read_redrives(self._databases.get("deadletters"), self._scratch)
        self._read_outboxes(groups)
        after = self._bounds(groups)
        ids = topic_ids(self._connection, sorted({partition.topic for partition in after}))
        others = made_anew(groups, ids)
        check_committed(groups, committed, before, self._notes)
        groups = [check_positions(group, ids, before, after, self._notes) for group in groups]
        if self._mails_are_kept:
            read_mails(self._mail, self._scratch)
        scan = Scan(
            self._connection, groups, self._scratch, self._notes, self._letters,
            horizons=self._horizons, since=self._since, mails_are_kept=self._mails_are_kept,
        )  # fmt: skip
        self._read_topics(scan, groups, ids, others)
        self._scratch.index()
        check_accepted(self._scratch, self._horizons, self._notes)
        Events(self._scratch, self._horizons, self._notes).check()
        check_fan_outs(
            self._databases.get("users"), fan_outs, self._scratch, self._horizons, self._notes
        )
        check_redrives(self._scratch, self._horizons, self._notes)
        self._letters.tell(self._databases.get("deadletters"))
        check_copies(self._scratch, self._notes)
        log = next(group for group in groups if group.name == "log")
        check_trail(self._connection, log, self._notes)
        return scan.records

    def _bounds(self, groups: Sequence[Group]) -> Mapping[Partition, Bounds]:
        """A broker that has just become a leader refuses to tell for a moment."""
        deadline = time.monotonic() + LEADER_S
        while True:
            topics = self._connection.metadata().topics
            try:
                return log_bounds(self._connection, partitions_of(topics, groups))
            except KafkaError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def _read_outboxes(self, groups: Sequence[Group]) -> None:
        for database in self._databases.values():
            for topic, record in waiting_records(database):
                if topic == DEADLETTER.name:
                    self._letters.add([record])
                    continue
                note_sent_again(self._scratch, topic, [record])
                readings = (decoded(group, topic, record) for group in groups if group.reads(topic))
                found = next((one for one in readings if isinstance(one, Incoming)), None)
                if found is not None:
                    subject = subject_of(found.message)
                    row = (key(found.message.event_id), subject and key(subject))
                    self._scratch.insert("waiting", [(self._scratch.topic(topic), *row)])

    def _read_topics(
        self, scan: Scan, groups: Sequence[Group], ids: Mapping[str, str], others: set[str]
    ) -> None:
        now = round(time.time() * 1000)
        for name in others:
            self._horizons.begin(name, now)
        if DEADLETTER.name in ids:
            scan.dead_letters(DEADLETTER.name)
        self._letters.add_kept(self._databases.get("deadletters"))
        for topic in TOPICS:
            if topic.name not in ids:  # whoever has a position in it is found by that
                self._horizons.begin(topic.name, now)
                continue
            judges = [one for one in groups if one.gives_receipts and one.reads(topic.name)]
            scan.topic(topic.name, judges)
