"""A redrive, held against SIGKILL: each letter is redriven once. What the relay was publishing when
it was killed may lie on the topic twice, under one event id, by which receivers drop the copy."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from shop.db.database import Database
from shop.deadletters.model import LetterRow, State, What
from shop.kafka.letter import REDRIVE_OF
from shop.kafka.wire import EVENT_ID
from shop.topics import PIX
from tests.backends import Backend
from tests.faults.harness import PATIENCE_S, Faulty, faulty
from tests.reading import read_all
from tests.waiting import eventually

LETTERS = 2000
KILLS = 3
RATE = 1000  # a second


def keep(database: Database) -> dict[str, str]:
    """Letters as the group keeps them: id by event id."""
    kept = {f"event-{number}": f"letter-{number}" for number in range(LETTERS)}
    rows = [
        {
            "id": letter, "state": State.WAITING, "topic": PIX.name, "partition": 0,
            "offset": number, "consumer_group": "pix", "failures": 1, "first_at": 1, "last_at": 1,
            "letter_partition": 0, "letter_offset": number, "key": b"k", "value": b"v",
            "headers": msgspec.msgpack.encode([(EVENT_ID, event_id.encode())]),
        }
        for number, (event_id, letter) in enumerate(kept.items())
    ]  # fmt: skip
    with database.write() as connection:
        connection.execute(LetterRow.__table__.insert(), rows)  # type: ignore[attr-defined]
    database.close()
    return kept


class Redrive:
    """One that was asked for, and the count of what is left of it."""

    def __init__(self, shop: Faulty) -> None:
        self._shop = shop
        body = {"by": "ops", "olderThan": 0, "rate": RATE}
        answer = shop.client.post("/deadletters/redrive", json=body)
        assert answer.status_code == 202, answer.text
        assert answer.json()["letters"] == LETTERS
        self._path = answer.headers["location"]
        again = shop.client.post("/deadletters/redrive", json=body)
        assert again.json()["letters"] == 0, "none is chosen twice"

    def seen(self) -> Any:
        return self._shop.client.get(self._path).json()

    def count(self) -> int:
        found: int = self.seen()["redriven"]
        return found


def test_a_redrive_killed_in_the_middle_sends_each_letter_once(
    backend: Backend, tmp_path: Path
) -> None:
    with faulty(tmp_path) as shop:
        shop.kill(shop.serve)
        kept = keep(backend.open("deadletters", tmp_path))
        shop.serve = shop.start("serve")
        eventually(shop.up, "the API", PATIENCE_S)
        redrive = Redrive(shop)
        for kill in range(KILLS):
            share = LETTERS * kill // (KILLS + 1) + shop.moments.randrange(1, LETTERS // KILLS)
            eventually(lambda at=share: redrive.count() >= at, f"{share} letters", PATIENCE_S)
            assert redrive.count() < LETTERS, "the kill comes in the middle"
            shop.kill(shop.serve)
            shop.serve = shop.start("serve")
            eventually(shop.up, "the API again", PATIENCE_S)
        done = eventually(
            lambda: seen if (seen := redrive.seen())["state"] == "finished" else None,
            "all letters",
            PATIENCE_S,
        )
        assert (done["redriven"], done["queued"]) == (LETTERS, 0)
        eventually(lambda: not shop.rows("deadletters", "SELECT 1 FROM outbox"), "the relay")

        sent = [dict(record.headers()) for record in read_all(shop.kafka, PIX)]
        found = {told[EVENT_ID].decode(): told[REDRIVE_OF].decode() for told in sent}
        assert found == kept, "each is sent, under its event id"
        states = "SELECT state, count(*) FROM letter GROUP BY state"
        assert shop.rows("deadletters", states) == [(State.REDRIVEN, LETTERS)]
        events = "SELECT letter, what, by FROM letter_event"
        ended = Counter(shop.rows("deadletters", events))
        assert ended == Counter((id_, What.REDRIVEN, "ops") for id_ in kept.values())
