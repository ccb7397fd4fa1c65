"""Listing, redriving and discarding letters."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from shop.db.tables import held_key
from shop.deadletters.model import LetterRow
from shop.deadletters.sending import Pace
from shop.kafka.errors import HeldBack, WireError
from shop.kafka.letter import REDRIVE_OF
from shop.kafka.wire import EVENT_ID, REDRIVE_TO
from shop.topics import DEADLETTER, NEW_ORDER, ORDER_APPROVED, PIX
from tests.unit.deadletters.conftest import Api, Raw


def offsets(api: Api, **asked: Any) -> list[int]:
    return sorted(letter["offset"] for letter in api.letters(**asked))


def is_old(api: Api, offset: int, seconds: float = 3600) -> None:
    with api.database.write() as connection:
        row = LetterRow.offset == offset
        older = update(LetterRow).where(row).values(last_at=LetterRow.last_at - seconds * 1000)
        connection.execute(older)


def fail_some(api: Api) -> None:
    api.keeper.fail(Raw(at=1), Raw(at=2))
    api.keeper.fail(Raw(at=3), group="users", error=WireError("100% wrong"))
    api.keeper.fail(Raw(ORDER_APPROVED.name, at=4), group="orders", error=KeyError())
    is_old(api, 2)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, [1, 2, 3, 4]),
        ({"topic": NEW_ORDER.name}, [1, 2, 3]),
        ({"group": "users"}, [3]),
        ({"exception": "wireerror"}, [3]),
        ({"exception": "builtins."}, [1, 2, 4]),
        ({"exception": "%"}, []),
        ({"exception": "_"}, []),
        ({"olderThan": 1800}, [2]),
        ({"newerThan": 1800}, [1, 3, 4]),
        ({"newerThan": 1800, "group": "fraud"}, [1]),
        ({"state": "discarded"}, []),
        ({"state": "waiting", "topic": ORDER_APPROVED.name}, [4]),
        ({"ids": "no such id"}, []),
    ],
)
def test_letters_are_listed_by_what_is_said_of_them(
    api: Api, asked: dict[str, Any], found: list[int]
) -> None:
    fail_some(api)
    assert offsets(api, **asked) == found
    if asked and "state" not in asked:
        assert api.redrive(200, dryRun=True, **_as_body(asked))["letters"] == len(found)
        would = api.client.delete("/deadletters", params=asked | {"by": "ops", "dryRun": True})
        assert would.json() == {"letters": len(found), "behind": 0, "dryRun": True}
    assert offsets(api, state="waiting") == [1, 2, 3, 4], "a dry run does nothing"


def _as_body(asked: dict[str, Any]) -> dict[str, Any]:
    return asked | ({"ids": [asked["ids"]]} if "ids" in asked else {})


def test_the_list_goes_on_page_by_page_with_the_same_filters(api: Api) -> None:
    api.keeper.fail(*(Raw(at=number) for number in range(25)))
    api.keeper.fail(Raw(at=99), group="users")
    path, seen = "/deadletters?group=fraud&newerThan=3600&limit=10&ids=", []
    path = f"{path}&" + "&".join(f"ids={letter['id']}" for letter in api.letters())
    while path:
        page = api.client.get(path).json()
        seen += [letter["offset"] for letter in page["letters"]]
        path = page["next"]
    assert sorted(seen) == [*range(25)]


def test_the_list_shortens_addresses(api: Api) -> None:
    api.keeper.fail(Raw(its_key=b"ana@example.com"))
    assert api.letters()[0]["key"] == "a…@example.com"


def test_letters_are_redriven_in_the_order_in_which_they_failed(api: Api) -> None:
    api.send_redrives()
    for at in (9, 2, 500, 30):
        api.keeper.fail(Raw(at=at, its_value=str(at).encode()))
    api.keeper.fail(*(Raw(at=1000 + n, its_value=str(1000 + n).encode()) for n in range(450)))
    done = api.redriven(group="fraud", by="ana")
    assert (done["letters"], done["redriven"], done["queued"]) == (454, 454, 0)
    assert done["destinations"] == [{"topic": NEW_ORDER.name, "group": "fraud", "letters": 454}]
    sent = [int(record.value or b"") for record in api.sent()]
    assert sent == [2, 9, 30, 500, *range(1000, 1450)]
    letter = api.letter(api.letters()[0]["id"])
    assert letter["state"] == "redriven"
    event = letter["history"][-1]
    assert (event["what"], event["by"], event["redrive"]) == ("redriven", "ana", done["id"])
    assert event["detail"] == f"to fraud on {NEW_ORDER}"


@pytest.mark.parametrize("claimed", ["__consumer_offsets", "no-such-topic", DEADLETTER.name])
def test_a_topic_that_is_none_of_the_shops_is_no_destination(api: Api, claimed: str) -> None:
    api.send_redrives()
    api.keeper.fail(Raw(claimed, at=1), group="orders")
    api.keeper.fail(Raw(at=2))
    plan = api.redrive(200, olderThan=0, dryRun=True)
    assert (plan["letters"], plan["withoutTopic"]) == (1, 1)
    assert plan["destinations"] == [{"topic": NEW_ORDER.name, "group": "fraud", "letters": 1}]
    assert api.redriven(olderThan=0)["withoutTopic"] == 1
    assert [record.topic for record in api.sent()] == [NEW_ORDER.name]
    done = api.redriven(olderThan=0, to=ORDER_APPROVED.name)
    assert done["destinations"] == [{"topic": ORDER_APPROVED.name, "group": "orders", "letters": 1}]
    assert [record.topic for record in api.sent()] == [NEW_ORDER.name, ORDER_APPROVED.name]
    (letter,) = api.letters(topic=claimed)  # what it claims stays to be seen
    assert api.letter(letter["id"])["history"][-1]["detail"] == f"to orders on {ORDER_APPROVED}"


def test_no_letter_goes_to_a_group_that_does_not_read_its_topic(api: Api) -> None:
    api.keeper.fail(Raw(at=1), group="OldGroup")
    api.keeper.fail(Raw("no-such-topic", at=2))
    elsewhere = [
        ({"group": "OldGroup", "toGroup": "pix"}, "Group pix does not read ECOMMERCE_NEW_ORDER"),
        ({"group": "fraud", "to": PIX.name}, "Group fraud does not read pix-topic"),
    ]
    for asked, why in elsewhere:
        for dry_run in (True, False):
            assert why in api.redrive(422, **asked, dryRun=dry_run)["detail"]
    api.redrive(400, group="fraud", toGroup="deadletter")
    assert len(api.letters(state="waiting")) == 2
    plan = api.redrive(200, group="fraud", to=PIX.name, toGroup="pix", dryRun=True)
    assert plan["destinations"] == [{"topic": PIX.name, "group": "pix", "letters": 1}]


@pytest.mark.parametrize(("to_group", "group"), [("users", "users"), ("all", None)])
def test_a_letter_of_a_group_that_is_gone_is_redriven_to_the_one_that_is_named(
    api: Api, to_group: str, group: str | None
) -> None:
    api.send_redrives()
    api.keeper.fail(Raw(at=1), group="OldGroup")
    api.keeper.fail(Raw(at=2))
    for dry_run in (True, False):
        refused = api.redrive(422, olderThan=0, dryRun=dry_run)
        assert "no group OldGroup" in refused["detail"]
        assert "toGroup" in refused["detail"]
    assert len(api.letters(state="waiting")) == 2
    assert api.redrive(200, group="fraud", dryRun=True)["letters"] == 1
    done = api.redriven(olderThan=0, toGroup=to_group)
    assert done["toGroup"] == to_group
    assert {to["group"] for to in done["destinations"]} == {"fraud", group}
    sent = [dict(record.headers).get(REDRIVE_TO) for record in api.sent()]
    assert sent == [group and group.encode(), b"fraud"]
    (letter,) = api.letters(group="OldGroup")
    happened = api.letter(letter["id"])["history"][-1]["detail"]
    assert happened == f"to {group or 'all groups'} on {NEW_ORDER}"


def test_what_is_redriven_is_chosen_again_only_when_that_is_said(api: Api) -> None:
    api.send_redrives()
    api.keeper.fail(Raw(its_headers=[(EVENT_ID, b"e1")]))
    api.redriven(olderThan=0)
    assert api.redrive(olderThan=0)["letters"] == 0
    assert api.redriven(olderThan=0, again=True)["letters"] == 1
    assert [dict(record.headers)[EVENT_ID] for record in api.sent()] == [b"e1", b"e1"]


def test_letters_of_one_key_go_together_in_their_order(api: Api) -> None:
    held = HeldBack("held back")
    api.keeper.fail(Raw(at=1))
    api.keeper.fail(Raw(at=7), Raw(at=5), error=held)
    api.keeper.fail(Raw(at=6, its_key=b"another"), Raw(at=6, its_key=None), error=held)
    api.keeper.fail(Raw(at=6), group="users", error=held)
    first = next(letter for letter in api.letters(exception="ValueError"))
    asked = {"ids": [first["id"]]}
    plan = api.redrive(200, **asked, dryRun=True)
    assert (plan["state"], plan["letters"], plan["behind"]) == ("planned", 3, 2)
    api.send_redrives()
    assert api.redriven(**asked)["behind"] == 2
    assert offsets(api, state="redriven") == [1, 5, 7]
    order = {letter["id"]: letter["offset"] for letter in api.letters()}
    sent = [order[dict(record.headers)[REDRIVE_OF].decode()] for record in api.sent()]
    assert sent == [1, 5, 7]


def test_the_same_key_gives_the_same_redrive(api: Api) -> None:
    api.keeper.fail(Raw())
    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(api.redrive, key="k", group="fraud") for _ in range(8)]
    (first, *others) = [one.result() for one in asked]
    assert first["letters"] == 1
    assert all(other == first for other in others)
    assert "another request" in api.redrive(422, key="k", group="users")["detail"]


def test_redrives_at_once_choose_no_letter_twice(api: Api) -> None:
    api.keeper.fail(*(Raw(at=number) for number in range(50)))
    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(api.redrive, olderThan=0) for _ in range(8)]
    assert sum(one.result()["letters"] for one in asked) == 50
    api.send_redrives()
    for one in asked:
        api.finished(one.result())
    assert len(api.sent()) == 50


def test_a_letter_that_fails_while_it_is_queued_is_redriven_once(api: Api) -> None:
    api.keeper.fail(Raw(at=1, its_headers=[(EVENT_ID, b"e1")]))
    begun = api.redrive(olderThan=0)
    told = [(EVENT_ID, b"e1"), (REDRIVE_TO, b"fraud"), (REDRIVE_OF, api.only()["id"].encode())]
    api.keeper.fail(Raw(at=2, its_headers=told))
    assert (api.only()["state"], api.only()["failures"]) == ("queued", 2)
    api.send_redrives()
    assert api.finished(begun)["redriven"] == 1
    assert len(api.sent()) == 1


def test_a_slow_redrive_ends_with_its_last_letter(api: Api) -> None:
    api.send_redrives()
    api.keeper.fail(Raw())
    assert api.redriven(olderThan=0, rate=0.001)["redriven"] == 1


@pytest.mark.parametrize("rate", [0.5, 20, 100_000])
def test_a_rate_is_kept_evenly(monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace, went = Pace(rate), 0
    for tick in range(1000):
        now += 30 if tick == 500 else 0.05  # it stood still for a while
        due = pace.due()
        assert due <= max(1, rate / 10)
        pace.took(due)
        went += due
    assert went == pytest.approx(rate * 50, rel=0.05, abs=2)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"by": "", "olderThan": 0}, "#/by"),
        ({"olderThan": 0, "by": None}, "#/by"),
        ({"olderThan": -1}, "#/olderThan"),
        ({"olderThan": 0, "rate": 0}, "#/rate"),
        ({"olderThan": 0, "to": "ECOMMERCE_DEADLETTER"}, "#/to"),
        ({"olderThan": 0, "to": "nowhere"}, "#/to"),
        ({"olderThan": 0, "toGroup": "nobody"}, "#/toGroup"),
        ({"topic": "a\0"}, "#/topic"),
        ({"everything": True}, "#/everything"),
    ],
)
def test_what_cannot_be_is_named(api: Api, body: dict[str, Any], pointer: str) -> None:
    assert api.redrive(400, **body)["errors"][0]["pointer"] == pointer


def test_a_state_that_is_none_is_named_as_in_the_url(api: Api) -> None:
    answer = api.client.get("/deadletters", params={"state": "bogus"})
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["parameter"]) == (400, "state")
    assert "waiting, queued, redriven, discarded" in error["detail"]
    assert "in_state" not in answer.text


def test_nobody_redrives_or_discards_all_by_saying_nothing(api: Api) -> None:
    api.keeper.fail(Raw())
    assert "olderThan 0 is all" in api.redrive(400)["detail"]
    assert api.client.delete("/deadletters", params={"by": "ops"}).status_code == 400
    mistyped = api.client.delete("/deadletters", params={"by": "ops", "group": "a", "newerthan": 1})
    assert mistyped.status_code == 400
    assert "newerthan" in mistyped.json()["detail"]
    assert api.only()["state"] == "waiting"


def test_a_discarded_letter_stays_with_who_did_it_and_why(api: Api) -> None:
    api.keeper.fail(Raw())
    path = f"/deadletters/{api.only()['id']}"
    for _ in range(2):  # the second time changes nothing
        answer = api.client.delete(path, params={"by": "ana", "reason": "a test order"})
        assert (answer.status_code, answer.content) == (204, b"")
    letter = api.only()
    assert letter["state"] == "discarded"
    happened = [(event["what"], event["by"], event["detail"]) for event in letter["history"]]
    assert happened == [("failed", "fraud", "no"), ("discarded", "ana", "a test order")]
    assert api.redrive(olderThan=0)["letters"] == 0


def test_what_is_held_back_behind_a_discarded_letter_is_released_first(api: Api) -> None:
    api.keeper.fail(Raw(at=1), Raw(at=2))
    ids = {letter["offset"]: letter["id"] for letter in api.letters()}
    held = {"consumer_group": "fraud", "topic": NEW_ORDER.name}
    rows = [held | {"name": f"key {n}", "letter": id_} for n, id_ in ids.items()]
    with api.groups.write() as connection:
        connection.execute(insert(held_key), rows)
    asked = {"by": "ops", "ids": ids[1]}
    answer = api.client.delete("/deadletters", params=asked).json()
    assert answer == {"letters": 1, "behind": 0, "dryRun": False}  # the other failed by itself
    with api.groups.read() as connection:
        assert connection.scalars(select(held_key.c.letter)).all() == [ids[2]]
    assert api.client.delete("/deadletters", params=asked).json()["letters"] == 0
    for _ in range(2):  # as after a crash between release and discard
        api.client.delete(f"/deadletters/{ids[2]}", params={"by": "ops"})
    assert api.released == [("fraud", [ids[1]])] + 2 * [("fraud", [ids[2]])]
    with api.groups.read() as connection:
        assert connection.scalars(select(held_key.c.letter)).all() == []


def test_a_queued_letter_that_is_discarded_is_not_sent(api: Api) -> None:
    api.keeper.fail(Raw(at=1), Raw(at=2))
    begun = api.redrive(olderThan=0)
    (letter,) = [letter for letter in api.letters() if letter["offset"] == 1]
    api.client.delete(f"/deadletters/{letter['id']}", params={"by": "ops"})
    api.send_redrives()
    done = api.finished(begun)
    assert (done["letters"], done["redriven"]) == (2, 1)
    assert len(api.sent()) == 1


def test_a_redriven_letter_cannot_be_discarded(api: Api) -> None:
    api.keeper.fail(Raw())
    api.send_redrives()
    api.redriven(olderThan=0)
    path = f"/deadletters/{api.only()['id']}?by=ops"
    assert api.client.delete(path).status_code == 409
    assert api.only()["state"] == "redriven"


def test_what_is_not_there_is_not_found(api: Api) -> None:
    for path in ("/deadletters/x", "/deadletters/a%00b", "/deadletters/redrives/x%00"):
        assert api.client.get(path).status_code == 404
    assert api.client.delete("/deadletters/a%00b?by=ops").status_code == 404


def test_all_of_it_is_for_those_who_run_the_shop(start_api: Callable[..., Api]) -> None:
    api = start_api(admin_token="secret")
    requests = [
        ("GET", "/deadletters"),
        ("GET", "/deadletters/x"),
        ("POST", "/deadletters/redrive"),
        ("GET", "/deadletters/redrives/x"),
        ("DELETE", "/deadletters/x?by=ops"),
        ("DELETE", "/deadletters?by=ops&olderThan=0"),
    ]
    for method, path in requests:
        assert api.client.request(method, path).status_code == 401, path
        admitted = api.client.request(method, path, headers={"Authorization": "Bearer secret"})
        assert admitted.status_code in (200, 400, 404), path
