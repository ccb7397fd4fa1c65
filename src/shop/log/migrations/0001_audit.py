"""Every record of the shop, in the order of arrival."""

import sqlalchemy as sa
from alembic import op

from shop.db.schema import create_messaging_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_messaging_tables()
    op.create_table(
        "audit",
        # AUTOINCREMENT: an id is not given again when the newest row was deleted.
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("topic", sa.String, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
        sa.Column("type", sa.String),
        sa.Column("event_id", sa.String, nullable=False),
        sa.Column("correlation_id", sa.String, nullable=False),
        sa.Column("origin", sa.String, nullable=False),
        sa.Column("order_id", sa.String),
        sa.Column("traceparent", sa.String),
        # Last, so that SQLite finds the other columns without reading a long value.
        sa.Column("key", sa.LargeBinary),
        sa.Column("value", sa.LargeBinary),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_by_origin", "audit", ["origin"])
    named = sa.text("order_id IS NOT NULL")
    op.create_index(
        "audit_by_order", "audit", ["order_id"], sqlite_where=named, postgresql_where=named
    )
