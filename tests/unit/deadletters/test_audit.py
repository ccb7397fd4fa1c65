"""What an audit knows of letters by the database that keeps them, when their topic forgot them."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from shop.kafka.browse import RawRecord
from shop.kafka.letter import REDRIVE_OF
from shop.kafka.wire import REDRIVE_TO
from shop.topics import NEW_ORDER, PIX
from shop.verify.accepted import check_accepted
from shop.verify.horizons import Horizons
from shop.verify.letters import Letters
from shop.verify.redrives import check_redrives, note_sent_again, read_redrives
from shop.verify.report import Kind, Notes
from shop.verify.scratch import Scratch, key
from tests.unit.deadletters.conftest import Api, Raw

FAR = 2**45  # milliseconds: later than any test


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    with Scratch() as scratch:
        yield scratch


def at(offset: int, *headers: tuple[str, bytes]) -> RawRecord:
    return RawRecord(0, offset, 1, None, None, headers)


def test_each_place_where_a_record_failed_is_known_from_the_database(
    api: Api, scratch: Scratch
) -> None:
    api.send_redrives()
    first = Raw("no-such-topic", at=3)
    api.keeper.fail(first)
    api.keeper.fail(Raw(at=5))
    api.redriven(olderThan=0, to=PIX.name, toGroup="all")
    for letter in api.letters():
        again = [(REDRIVE_TO, b"fraud"), (REDRIVE_OF, letter["id"].encode())]
        place = PIX.name if letter["offset"] == 3 else NEW_ORDER.name
        api.keeper.fail(replace(first, where=place, at=10 + letter["offset"], its_headers=again))
    letters = Letters(scratch, Notes())
    letters.add_kept(api.database)

    for topic, offset in ((PIX.name, 13), (NEW_ORDER.name, 5), (NEW_ORDER.name, 15)):
        assert letters.has("fraud", topic, at(offset))
    assert not letters.has("fraud", NEW_ORDER.name, at(6))
    assert not letters.has("users", NEW_ORDER.name, at(5))


def test_a_redriven_record_that_is_neither_on_its_topic_nor_in_an_outbox_is_lost(
    api: Api, scratch: Scratch
) -> None:
    api.send_redrives()
    api.keeper.fail(Raw(at=1), Raw(at=2), Raw(at=3))
    there, twice, lost = (letter["id"] for letter in api.letters())
    api.redriven(olderThan=0)
    api.redriven(ids=[twice], again=True)
    read_redrives(api.database, scratch)
    again = [at(n, (REDRIVE_OF, id_.encode())) for n, id_ in enumerate((there, twice))]
    note_sent_again(scratch, NEW_ORDER.name, again)
    scratch.index()

    # One of them was redriven twice and is there once.
    assert sorted(missing(scratch)) == sorted([lost, twice])
    note_sent_again(scratch, NEW_ORDER.name, again)
    assert missing(scratch) == [lost]


def test_what_is_older_than_its_topic_is_not_judged_and_that_is_said(
    api: Api, scratch: Scratch
) -> None:
    api.send_redrives()
    api.keeper.fail(Raw())
    api.redriven(olderThan=0)
    read_redrives(api.database, scratch)
    scratch.insert("accepted", [(scratch.topic(NEW_ORDER.name), key("o1"), 1_000)])
    scratch.index()
    notes = Notes()
    horizons = Horizons(0, notes)
    horizons.begin(NEW_ORDER.name, FAR)
    check_redrives(scratch, horizons, notes)
    check_accepted(scratch, horizons, notes)

    assert notes.findings == []
    said = (
        "not judged, for all of ECOMMERCE_NEW_ORDER is there only since 3084-12-12T12:41:28+00:00"
    )
    assert [(remark.what, remark.where, remark.count) for remark in notes.remarks] == [
        (f"accepted orders that are on no topic: {said}", "orders database", 1),
        (f"records of redriven letters: {said}", "deadletters database", 1),
    ]
    assert not Horizons(2_000, notes).judged(1_000, "orders", "database", NEW_ORDER.name)
    assert len(notes.remarks) == 2  # what nobody asked for is not missed


def missing(scratch: Scratch) -> list[str | None]:
    notes = Notes()
    horizons = Horizons(0, notes)
    horizons.begin(NEW_ORDER.name, 0)
    check_redrives(scratch, horizons, notes)
    (finding,) = notes.findings
    assert finding.kind == Kind.LOST
    return [example.id for example in finding.examples]
