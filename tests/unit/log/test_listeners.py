import logging

import pytest

from tests.unit.log.conftest import Trail

TOPIC = "ECOMMERCE_NEW_ORDER"
LOGGER = "shop.log.listeners"


def test_each_record_is_one_line_with_addresses_shortened(
    trail: Trail, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    trail.keep(TOPIC, "C", value=b'{"email":"bia@example.com"}\n')
    trail.keep(TOPIC, "C", value=b"x", copies=2)
    assert caplog.messages == [
        rf'{TOPIC}[0]@0 a…@example.com {{"email":"b…@example.com"}}\n',
        f"{TOPIC}[0]@1 a…@example.com x",
        f"{TOPIC}[0]@2 a…@example.com x",
    ]
