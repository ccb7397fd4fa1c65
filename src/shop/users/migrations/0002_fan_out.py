"""Records for all users, and users by their age."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "fan_out",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("correlation_id", sa.String, nullable=False),
        sa.Column("traceparent", sa.String),
        sa.Column("asked_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("total", sa.BigInteger),
        sa.Column("sent", sa.BigInteger, nullable=False),
        sa.Column("cursor", sa.String, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("refused", sa.Text),
    )
    op.create_index("fan_out_by_state", "fan_out", ["state", "asked_at", "id"])
    op.create_index("users_by_age", "users", ["created_at", "uuid"])
