"""`shop pix` on what strangers wrote, by way of the topic or the API."""

from collections.abc import Callable
from decimal import Decimal

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from shop.cli import app
from shop.pix.model import KeyRow, PaymentRow, Status
from tests.unit.pix.conftest import Api

STEERING = "ana\x1b[2J\x9b"


@pytest.mark.parametrize("command", ["show p-1", "keys"])
def test_what_is_shown_does_not_steer_the_terminal(
    start_api: Callable[[], Api], command: str
) -> None:
    api = start_api()
    payment = {
        "identifier": "p-1", "source_key": STEERING, "target_key": "bia", "amount": Decimal(1),
        "transferred_at": None, "status": Status.FAILED, "correlation_id": "c", "created_at": 1,
    }  # fmt: skip
    with api.database.write() as connection:
        connection.execute(insert(PaymentRow), payment)
        connection.execute(insert(KeyRow), {"key": STEERING, "created_at": 1})

    port = str(api.server.port)
    said = CliRunner().invoke(app, ["pix", *command.split()], env={"SHOP_HTTP__PORT": port})

    assert said.exit_code == 0, said.output
    assert "ana\\x1b[2J\\x9b" in said.output
    assert "\x1b" not in said.output
