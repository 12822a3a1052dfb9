"""Why things ended: what a later look at an archive needs beside the numbers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("end_reason", "end_detail"):
        op.add_column("campaigns", sa.Column(column, sa.Text(), nullable=True))
    op.execute("UPDATE campaigns SET end_reason = 'unrecorded' WHERE finished_at IS NOT NULL")
    op.execute("UPDATE campaigns SET end_reason = 'imported' WHERE finished_at IS NOT NULL AND status = 'imported'")
    op.add_column("proposals", sa.Column("reply_problem", sa.Text()))


def downgrade() -> None:
    op.drop_column("proposals", "reply_problem")
    for column in ("end_detail", "end_reason"):
        op.drop_column("campaigns", column)
