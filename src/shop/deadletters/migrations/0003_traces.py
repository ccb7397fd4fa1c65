"""Where a letter and a redrive stand in their traces, so that what comes of them is linked."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("letter", sa.Column("traceparent", sa.String))
    op.add_column("redrive", sa.Column("traceparent", sa.String))
