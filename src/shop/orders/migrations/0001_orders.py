"""Orders and the idempotency keys they came under."""

import sqlalchemy as sa
from alembic import op

from shop.db.schema import create_messaging_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_messaging_tables()
    op.create_table(
        "orders",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("email", sa.String, nullable=False),
        sa.Column("amount", sa.Text, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("correlation_id", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("decided_at", sa.BigInteger),
        sa.Column("answered_with", sa.String),
    )
    op.create_index("orders_by_age", "orders", ["created_at", "id"])
    op.create_index("orders_by_email", "orders", ["email", "created_at", "id"])
    op.create_index("orders_by_status", "orders", ["status", "created_at", "id"])
    op.create_table(
        "idempotency_key",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("order_id", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
