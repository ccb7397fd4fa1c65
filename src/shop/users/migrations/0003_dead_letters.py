"""Held keys, and keys of any bytes in the outbox."""

from shop.db.schema import create_messaging_tables

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    create_messaging_tables()
