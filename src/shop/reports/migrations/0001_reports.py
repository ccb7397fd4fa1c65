"""Runs, the reports they led to, and the orders that reports tell of."""

import sqlalchemy as sa
from alembic import op

from shop.db.schema import create_messaging_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_messaging_tables()
    op.create_table(
        "customer_order",
        sa.Column("order_id", sa.String, primary_key=True),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("amount", sa.Text, nullable=False),
        sa.Column("decision", sa.String, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.create_index("customer_order_by_email", "customer_order", ["email", "at", "order_id"])
    op.create_table(
        "report_run",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("correlation_id", sa.String, nullable=False),
        sa.Column("requested_at", sa.BigInteger, nullable=False),
        sa.Column("written", sa.BigInteger, nullable=False),
        sa.Column("written_at", sa.BigInteger),
    )
    op.create_table(
        "report",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("email", sa.String),
        sa.Column("run_id", sa.String),
        sa.Column("orders", sa.BigInteger, nullable=False),
        sa.Column("written_at", sa.BigInteger, nullable=False),
    )
