"""`shop deadletters`, against a real API."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shop.kafka.connection import Connection
from shop.kafka.errors import HeldBack, WireError
from shop.kafka.outbound import OutboundRecord
from shop.topics import DEADLETTER, PIX
from tests.commands import Said, run
from tests.unit.deadletters.conftest import Api, Raw

Shop = Callable[..., Said]


@pytest.fixture
def shop(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("SHOP_HTTP__PORT", api.url.rpartition(":")[2])
    nowhere = Connection("127.0.0.1:1")
    return lambda *words, **options: run(nowhere, tmp_path, "deadletters", *words, **options)


def test_list_shows_a_line_for_each_letter(api: Api, shop: Shop) -> None:
    api.keeper.fail(Raw(at=1), error=WireError("no"))
    api.keeper.fail(Raw(at=2, its_key=b"\x1b[31m"), group="users")
    said = shop("list")
    heading, *lines = said.stdout.splitlines()
    columns = ["id", "topic", "group", "key", "exception", "age", "failures", "state"]
    assert heading.split() == columns
    (ours,) = [line.split() for line in lines if "fraud" in line]
    assert ours[1:5] == ["ECOMMERCE_NEW_ORDER", "fraud", "a…@example.com", "WireError"]
    assert ours[6:] == ["1", "waiting"]
    assert "\x1b" not in said.stdout
    filtered = json.loads(shop("list", "--group", "users", "--json").stdout)
    assert [letter["group"] for letter in filtered] == ["users"]
    assert "there are more" in shop("list", "--limit", "1").stderr
    assert len(shop("list", "--older-than", "1h").stdout.splitlines()) == 1


def test_show_tells_all_that_is_known(api: Api, shop: Shop) -> None:
    api.keeper.fail(Raw(its_headers=[("mine", b"\xff")]))
    id_ = api.only()["id"]
    said = shop("show", id_)
    for part in ("ana@example.com", "not an envelope", "mine: base64 /w==", "ValueError: no"):
        assert part in said.stdout
    assert said.stdout.splitlines()[-1].endswith("failed by fraud at [0]@0: no")
    assert json.loads(shop("show", id_, "--json").stdout) == api.letter(id_)
    assert (shop("show", "x").code, shop("show", "x").stderr) == (
        1,
        "shop: There is no letter with this id.\n",
    )


def test_redrive_tells_what_it_does_asks_and_follows_it_to_the_end(api: Api, shop: Shop) -> None:
    api.send_redrives()
    api.keeper.fail(Raw(at=1))
    api.keeper.fail(Raw(at=2), error=HeldBack("behind"))
    api.keeper.take(OutboundRecord(DEADLETTER.name, None, b"garbage", []))
    dry = shop("redrive", "--all", "--dry-run")
    assert dry.stdout.splitlines() == [
        "2 letters to fraud on ECOMMERCE_NEW_ORDER",
        "1 letter left out: their topic is not told, or none of the shop's; --to names one",
        "Nothing was done.",
    ]
    assert shop("redrive", "--all", stdin="n\n").code == 1
    assert len(api.letters(state="waiting")) == 3
    done = shop("redrive", "--exception", "ValueError", "--by", "ana", stdin="y\n")
    assert "held back behind another of them: 1\n" in done.stdout
    assert done.stdout.endswith("2 letters redriven\n")
    assert len(api.sent()) == 2
    to_all = shop("redrive", "--all", "--to", PIX.name, "--json")
    assert json.loads(to_all.stdout)["redriven"] == 1
    again = shop("redrive", "--all", "--again", "--to", PIX.name, "--yes", "--rate", "1000")
    assert again.stdout.endswith("3 letters redriven\n")
    history = api.letter(api.letters(exception="ValueError")[0]["id"])["history"]
    assert [event["by"] for event in history][:2] == ["fraud", "ana"]


def test_letters_of_a_group_that_is_gone_need_another(api: Api, shop: Shop) -> None:
    api.send_redrives()
    api.keeper.fail(Raw(), group="OldGroup")
    refused = shop("redrive", "--all")
    assert (refused.code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("shop: There is no group OldGroup, ")
    assert "--to-group" in refused.stderr
    assert refused.stderr.count("\n") == 1
    done = shop("redrive", "--all", "--to-group", "users")
    assert done.stdout == "1 letter to users on ECOMMERCE_NEW_ORDER\n1 letter redriven\n"


def test_discard_counts_what_stays_held_back(api: Api, shop: Shop) -> None:
    api.keeper.fail(Raw(at=1))
    api.keeper.fail(Raw(at=2), Raw(at=3), Raw(at=0), Raw(at=4, its_key=b"b"), error=HeldBack("b"))
    behind = "held back behind them, to be redriven or discarded next: 2\n"
    dry = shop("discard", "--exception", "ValueError", "--dry-run")
    assert dry.stdout == f"{behind}1 letter would be discarded. Nothing was done.\n"
    done = shop("discard", "--exception", "ValueError")
    assert done.stdout == f"1 letter discarded\n{behind}"
    assert shop("discard", "--all", "--yes").stdout == "4 letters discarded\n"


def test_discard_asks_before_it_settles_many(api: Api, shop: Shop) -> None:
    api.keeper.fail(Raw(at=1), Raw(at=2), Raw(at=3))
    first, *_ = (letter["id"] for letter in api.letters())
    assert shop("discard", first, "--reason", "a test").stdout == "1 letter discarded\n"
    assert api.letter(first)["history"][-1]["detail"] == "a test"
    assert shop("discard", "--all", stdin="n\n").code == 1
    assert "2 letters would be discarded" in shop("discard", "--all", "--dry-run").stdout
    assert len(api.letters(state="waiting")) == 2
    assert shop("discard", "--group", "fraud", "--yes").stdout == "2 letters discarded\n"
    assert api.letters(state="waiting") == []


@pytest.mark.parametrize("command", ["redrive", "discard"])
def test_what_chooses_nothing_says_so(shop: Shop, command: str) -> None:
    assert "say which letters" in shop(command).stderr
    assert "no letter that waits is chosen" in shop(command, "--all").stderr
    assert "is no age" in shop(command, "--older-than", "yesterday").stderr


@pytest.mark.parametrize("command", ["redrive", "discard"])
def test_letters_that_are_not_there_or_settled_are_told_apart(
    api: Api, shop: Shop, command: str
) -> None:
    api.send_redrives()
    api.keeper.fail(Raw(at=1), Raw(at=2))
    first, second = (letter["id"] for letter in api.letters())
    unknown = shop(command, first, "no-such-id")
    assert (unknown.code, unknown.stdout) == (1, "")
    assert unknown.stderr == "shop: there is no letter with the id no-such-id\n"
    assert len(api.letters(state="waiting")) == 2

    shop("redrive", first)
    hint = "; --again redrives what is settled" if command == "redrive" else ""
    assert shop(command, first).stderr == f"shop: this letter is redriven{hint}\n"
    shop("discard", second)
    both = shop(command, first, second)
    said = f"shop: none of these letters waits: 1 discarded, 1 redriven{hint}\n"
    assert (both.code, both.stderr) == (1, said)


@pytest.mark.parametrize("rate", ["nan", "inf", "0", "-1", "1e9"])
def test_a_rate_that_cannot_be_kept_is_refused(shop: Shop, rate: str) -> None:
    refused = shop("redrive", "--all", "--rate", rate)
    assert refused.code == 2
    assert "is not from 0.001 to 1,000,000 a second" in " ".join(refused.stderr.split())
