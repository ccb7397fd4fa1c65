"""Which group a redrive sends letters to whose own is none of the shop's."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("redrive", sa.Column("target_group", sa.String))
