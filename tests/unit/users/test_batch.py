import asyncio
import logging

import pytest
from sqlalchemy import select

from shop.db.database import Database
from shop.db.store import DatabaseStore
from shop.kafka.acknowledgment import Acknowledgment
from shop.kafka.wire import Message
from shop.topics import SEND_MESSAGE_TO_ALL_USERS, USER_GENERATE_READING_REPORT
from shop.users.fan_out import FanOuts, Progress
from shop.users.listeners import Batch
from shop.users.model import FanOutRow


def ask(database: Database, target: str, event_id: str = "E") -> Acknowledgment:
    """As the container does with one record."""
    topic = SEND_MESSAGE_TO_ALL_USERS.name
    message = Message(target, target, topic, 0, 0, 1, event_id, "Servlet(1)", "00-a-b-00", [])
    ack = Acknowledgment()
    with DatabaseStore(database).transaction("batch", []) as transaction:
        Batch().note(message, transaction.work(message, event_id, "Batch"), ack)
    return ack


def progress(database: Database, fan_out_id: str) -> Progress | None:
    async def look() -> Progress | None:
        fan_outs = FanOuts(database)
        try:
            return await fan_outs.progress(fan_out_id)
        finally:
            fan_outs.close()

    return asyncio.run(look())


def test_what_is_asked_for_is_noted_with_its_way(database: Database) -> None:
    assert ask(database, USER_GENERATE_READING_REPORT.name).acknowledged
    with database.read() as connection:
        (row,) = connection.execute(select(FanOutRow.__table__)).all()
    assert (row.id, row.target, row.state) == ("E", USER_GENERATE_READING_REPORT.name, "running")
    assert row.correlation_id.startswith("Servlet(1)-Batch(")
    assert row.traceparent == "00-a-b-00"
    assert progress(database, "E") == Progress(None, 0, finished=False)


@pytest.mark.parametrize("target", ["ECOMMERCE_SEND_EMAIL", "", "x" * 100_000, "a\0\n'; DROP"])
def test_a_target_that_is_not_accepted_is_refused_without_harm(
    database: Database, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert ask(database, target).acknowledged
    (line,) = caplog.messages
    assert "E is refused" in line
    assert "\n" not in line
    assert len(line) < 1000
    refused = progress(database, "E")
    assert refused is not None
    assert refused.finished
    assert (refused.total, refused.sent) == (0, 0)
    assert refused.refused is not None
    assert USER_GENERATE_READING_REPORT.name in refused.refused


def test_the_same_asked_for_again_changes_nothing(database: Database) -> None:
    ask(database, USER_GENERATE_READING_REPORT.name)
    ask(database, "ECOMMERCE_SEND_EMAIL")  # under the same id
    assert progress(database, "E") == Progress(None, 0, finished=False)


@pytest.mark.parametrize("nobody", ["other", "E\0"])
def test_of_what_nobody_asked_for_there_is_no_progress(database: Database, nobody: str) -> None:
    ask(database, USER_GENERATE_READING_REPORT.name)
    assert progress(database, nobody) is None
