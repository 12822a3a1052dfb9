"""Which losses read inputs that tell more than labels do: they share tables with the others, marked, but no contest."""

from __future__ import annotations

from collections import defaultdict

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# of the contracts that there were before anything was called privileged, in their order
_PRIVILEGED = {
    "preference.pairs": ("chosen_score", "rejected_score", "preference_probability"),
    "preference.unpaired": ("score", "score_quantile"),
}
_CHUNK = 500
_candidates = sa.table("candidates", *(sa.column(n) for n in ("id", "contract")), sa.column("parameters", sa.JSON))
_standings = sa.table("standings", *(sa.column(n) for n in ("candidate_id", "privileged")))


def upgrade() -> None:
    op.add_column("standings", sa.Column("privileged", sa.Text(), server_default="", nullable=False))
    connection = op.get_bind()
    reading: dict[str, list[str]] = defaultdict(list)
    wanted = sa.select(_candidates).where(_candidates.c.contract.in_(_PRIVILEGED))
    for row in connection.execute(wanted):
        known = row.parameters if isinstance(row.parameters, list) else ()
        names = " ".join(n for n in _PRIVILEGED[row.contract] if n in known)
        if names:
            reading[names].append(row.id)
    for names, ids in reading.items():
        for first in range(0, len(ids), _CHUNK):
            some = _standings.c.candidate_id.in_(ids[first : first + _CHUNK])
            connection.execute(sa.update(_standings).where(some).values(privileged=names))


def downgrade() -> None:
    op.drop_column("standings", "privileged")
