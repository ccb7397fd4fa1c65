"""One user per e-mail."""

import sqlalchemy as sa
from alembic import op

from shop.db.schema import create_messaging_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_messaging_tables()
    op.create_table(
        "users",
        sa.Column("uuid", sa.String, primary_key=True),
        sa.Column("email", sa.String, nullable=False, unique=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
