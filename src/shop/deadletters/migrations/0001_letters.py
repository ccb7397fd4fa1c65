"""Letters, what happened to them, and their redrives."""

import sqlalchemy as sa
from alembic import op

from shop.db.schema import create_messaging_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_messaging_tables()
    op.create_table(
        "letter",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("topic", sa.String),
        sa.Column("partition", sa.BigInteger),
        sa.Column("offset", sa.BigInteger),
        sa.Column("timestamp", sa.BigInteger),
        sa.Column("consumer_group", sa.String),
        sa.Column("key_name", sa.String),
        sa.Column("exception", sa.String),
        sa.Column("message", sa.Text),
        sa.Column("attempts", sa.BigInteger),
        sa.Column("failures", sa.BigInteger, nullable=False),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.Column("letter_partition", sa.BigInteger, nullable=False),
        sa.Column("letter_offset", sa.BigInteger, nullable=False),
        sa.Column("redrive", sa.String),
        sa.Column("event_id", sa.String),
        sa.Column("correlation_id", sa.Text),
        sa.Column("stacktrace", sa.Text),
        # Last, so that SQLite finds the other columns without reading a long value.
        sa.Column("headers", sa.LargeBinary, nullable=False),
        sa.Column("key", sa.LargeBinary),
        sa.Column("value", sa.LargeBinary),
    )
    op.create_index("letter_by_age", "letter", ["last_at", "id"])
    op.create_index("letter_by_state", "letter", ["state", "last_at", "id"])
    op.create_index("letter_by_topic", "letter", ["topic", "state", "last_at", "id"])
    op.create_index("letter_by_key", "letter", ["consumer_group", "topic", "key_name", "redrive"])
    op.create_index(
        "letter_by_redrive", "letter", ["redrive", "state", "topic", "partition", "offset", "id"]
    )
    op.create_table(
        "letter_event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("letter", sa.String, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("what", sa.String, nullable=False),
        sa.Column("by", sa.String),
        sa.Column("detail", sa.Text),
        sa.Column("redrive", sa.String),
        sa.Column("partition", sa.BigInteger),
        sa.Column("offset", sa.BigInteger),
        sa.Column("exception", sa.String),
        sqlite_autoincrement=True,
    )
    op.create_index("letter_event_by_letter", "letter_event", ["letter", "id"])
    op.create_index("letter_event_by_redrive", "letter_event", ["redrive"])
    op.create_table(
        "redrive",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("asked", sa.LargeBinary, nullable=False),
        sa.Column("plan", sa.LargeBinary, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("rate", sa.Double),
        sa.Column("target", sa.String),
        sa.Column("asked_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
    )
