"""Nothing of its own yet: what was mailed is in the receipts."""

from shop.db.schema import create_messaging_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_messaging_tables()
