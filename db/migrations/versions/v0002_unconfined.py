"""Which attempts ran without the sandbox, and which candidates have such an attempt."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("attempts", "standings"):
        op.add_column(table, sa.Column("unconfined", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    for table in ("standings", "attempts"):
        op.drop_column(table, "unconfined")
