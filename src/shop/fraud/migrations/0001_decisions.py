"""One decision per order."""

import sqlalchemy as sa
from alembic import op

from shop.db.schema import create_messaging_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_messaging_tables()
    op.create_table(
        "decision",
        sa.Column("order_id", sa.String, primary_key=True),
        sa.Column("amount", sa.Text, nullable=False),
        sa.Column("is_fraud", sa.Boolean, nullable=False),
    )
