"""Payments and the keys between which they go."""

import sqlalchemy as sa
from alembic import op

from shop.db.schema import create_messaging_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_messaging_tables()
    op.create_table(
        "payment",
        sa.Column("identifier", sa.String, primary_key=True),
        sa.Column("source_key", sa.String),
        sa.Column("target_key", sa.String),
        sa.Column("amount", sa.Text),
        sa.Column("transferred_at", sa.String),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("correlation_id", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("decided_at", sa.BigInteger),
    )
    op.create_table(
        "pix_key",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
