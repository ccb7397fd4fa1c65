"""What a logger of the shop has said in a test; clients that other tests have left speak up too."""

import logging

import pytest


def records(caplog: pytest.LogCaptureFixture, logger: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == logger]


def messages(caplog: pytest.LogCaptureFixture, logger: str) -> list[str]:
    return [record.getMessage() for record in records(caplog, logger)]
