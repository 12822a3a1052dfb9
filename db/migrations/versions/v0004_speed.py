"""What listings and statistics of a large archive read instead of its trials, what replies cost, how long trials took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.engine import Connection

from db.types import SafeText

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_CHUNK = 1_000
_INTERRUPTED = "interrupted: %"  # such an attempt was closed when the campaign was taken up again, perhaps days later

_campaigns = sa.table("campaigns", sa.column("id"), sa.column("task_id"), sa.column("seeds", sa.JSON))
_candidates = sa.table("candidates", sa.column("id"), sa.column("source", sa.Text))
_proposals = sa.table(
    "proposals", *(sa.column(n) for n in ("id", "candidate_id", "state", "name", "thought", "judged_at", "created_at"))
)
_texts = sa.table("proposal_texts", sa.column("proposal_id"), sa.column("text", SafeText))
_standings = sa.table(
    "standings", *(sa.column(n) for n in ("campaign_id", "candidate_id", "proposal_id", "status", "measured_at"))
)
_means = sa.table("means", *(sa.column(n) for n in ("proposal_id", "name", "campaign_id", "value")))
_trials = sa.table(
    "trials",
    *(sa.column(n) for n in ("id", "campaign_id", "task_id", "candidate_id", "seed", "status", "device", "seconds")),
    sa.column("finished_at"), sa.column("details", sa.JSON),
)  # fmt: skip
_attempts = sa.table(
    "attempts",
    *(sa.column(n) for n in ("trial_id", "failure_message")),
    sa.column("started_at", sa.DateTime(timezone=True)), sa.column("ended_at", sa.DateTime(timezone=True)),
)  # fmt: skip
_metrics = sa.table("metrics", *(sa.column(n) for n in ("trial_id", "name", "value")))


def upgrade() -> None:
    op.create_table(
        "proposal_texts",
        sa.Column("proposal_id", _ROW_ID, nullable=False, autoincrement=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposals.id"], name=op.f("fk_proposal_texts_proposal_id")),
        sa.PrimaryKeyConstraint("proposal_id", name=op.f("pk_proposal_texts")),
    )
    op.create_table(
        "means",
        sa.Column("proposal_id", _ROW_ID, nullable=False, autoincrement=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("campaign_id", _ROW_ID, nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposals.id"], name=op.f("fk_means_proposal_id")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_means_campaign_id")),
        sa.PrimaryKeyConstraint("proposal_id", "name", name=op.f("pk_means")),
        sqlite_with_rowid=False,
    )
    op.add_column("proposals", sa.Column("reply_cost", sa.Double()))
    op.add_column("requests", sa.Column("cost", sa.Double()))
    op.add_column("standings", sa.Column("measured_at", sa.DateTime(timezone=True)))
    op.add_column("trials", sa.Column("device", sa.Text()))
    op.add_column("trials", sa.Column("seconds", sa.Double(), server_default="0", nullable=False))
    for index in ("ix_trials_status", "ix_trials_candidate_id"):
        op.drop_index(index, "trials")
    op.drop_index("ix_standings_rank", "standings")
    connection = op.get_bind()
    _fill_texts(connection)
    _fill_usage(connection)
    for campaign in connection.execute(sa.select(_campaigns)).all():
        _fill_means(connection, campaign)
    unknown = sa.and_(_proposals.c.state == "judged", _proposals.c.judged_at.is_(None))
    connection.execute(sa.update(_proposals).where(unknown).values(judged_at=_proposals.c.created_at))
    op.create_index("ix_means_value", "means", ["campaign_id", "name", "value", "proposal_id"])
    op.create_index("ix_standings_rank", "standings", ["campaign_id", "sort_key", "number", "proposal_id"])
    op.create_index("ix_standings_proposal_id", "standings", ["proposal_id"])
    op.create_index("ix_standings_measured", "standings", ["campaign_id", "measured_at"])
    op.create_index("ix_proposals_judged", "proposals", ["campaign_id", "judged_at"])
    op.create_index("ix_trials_candidate", "trials", ["candidate_id", "campaign_id"])
    op.create_index("ix_trials_usage", "trials", ["campaign_id", "status", "device", "attempts", "seconds"])
    op.create_index("ix_trials_finished", "trials", ["campaign_id", "finished_at"])


def downgrade() -> None:
    for index in ("ix_trials_finished", "ix_trials_usage", "ix_trials_candidate"):
        op.drop_index(index, "trials")
    op.drop_index("ix_proposals_judged", "proposals")
    for index in ("ix_standings_measured", "ix_standings_proposal_id", "ix_standings_rank"):
        op.drop_index(index, "standings")
    op.create_index("ix_standings_rank", "standings", ["campaign_id", "sort_key", "number"])
    op.create_index("ix_trials_status", "trials", ["campaign_id", "status"])
    op.create_index("ix_trials_candidate_id", "trials", ["candidate_id"])
    for table, column in (("trials", "seconds"), ("trials", "device"), ("standings", "measured_at"),
                          ("requests", "cost"), ("proposals", "reply_cost")):  # fmt: skip
        op.drop_column(table, column)
    op.drop_table("means")
    op.drop_table("proposal_texts")


def _fill_texts(connection: Connection) -> None:
    last = 0
    columns = (_proposals.c.id, _proposals.c.name, _proposals.c.thought, _candidates.c.source)
    whole = sa.select(*columns).join_from(_proposals, _candidates, _candidates.c.id == _proposals.c.candidate_id)
    while rows := connection.execute(whole.where(_proposals.c.id > last).order_by(_proposals.c.id).limit(_CHUNK)).all():
        texts = [{"proposal_id": r.id, "text": "\n".join((r.name, r.thought, r.source)).casefold()} for r in rows]
        connection.execute(sa.insert(_texts), texts)
        last = rows[-1].id


def _fill_usage(connection: Connection) -> None:
    last = 0
    change = (
        sa.update(_trials)
        .where(_trials.c.id == sa.bindparam("trial"))
        .values(device=sa.bindparam("on"), seconds=sa.bindparam("took"))
    )
    query = sa.select(_trials.c.id, _trials.c.details).order_by(_trials.c.id).limit(_CHUNK)
    while rows := connection.execute(query.where(_trials.c.id > last)).all():
        seconds = _seconds(connection, last, rows[-1].id)
        values = [
            {"trial": r.id, "on": (r.details or {}).get("device"), "took": seconds[r.id]}
            for r in rows
        ]  # fmt: skip
        connection.execute(change, values)
        last = rows[-1].id


def _seconds(connection: Connection, above: int, upto: int) -> dict[int, float]:
    """What attempts took by trial, of those whose end is known."""
    found: dict[int, float] = defaultdict(float)
    query = sa.select(_attempts).where(
        _attempts.c.trial_id > above,
        _attempts.c.trial_id <= upto,
        _attempts.c.ended_at.is_not(None),
        sa.or_(_attempts.c.failure_message.is_(None), _attempts.c.failure_message.not_like(_INTERRUPTED)),
    )
    for attempt in connection.execute(query):
        took: datetime = attempt.ended_at
        found[attempt.trial_id] += max((took - attempt.started_at).total_seconds(), 0.0)
    return found


def _fill_means(connection: Connection, campaign: Any) -> None:
    """Means and times of the ranked candidates of one campaign, in its database."""
    seeds = campaign.seeds
    counts = [
        _trials.c.campaign_id == campaign.id,
        _trials.c.task_id == campaign.task_id,
        _trials.c.status == "done",
        *([] if seeds is None else [_trials.c.seed.in_(seeds)]),
    ]
    ranked = [_standings.c.campaign_id == campaign.id, _standings.c.status == "ranked"]
    of_it = [*counts, _trials.c.candidate_id == _standings.c.candidate_id]
    newest = sa.select(sa.func.max(_trials.c.finished_at)).where(*of_it).correlate(_standings).scalar_subquery()
    connection.execute(sa.update(_standings).where(*ranked).values(measured_at=newest))
    columns = (_standings.c.proposal_id, _metrics.c.name, _standings.c.campaign_id)
    for some in _pieces(connection, ranked):
        filled = (
            sa.select(*columns, sa.func.avg(_metrics.c.value))
            .join_from(_standings, _trials, sa.and_(*of_it))
            .join(_metrics, _metrics.c.trial_id == _trials.c.id)
            .where(*ranked, _standings.c.candidate_id.in_(some), _metrics.c.name.not_like("%/%"))
            .group_by(*columns)
        )
        connection.execute(sa.insert(_means).from_select([*(c.name for c in columns), "value"], filled))


def _pieces(connection: Connection, ranked: list[Any]) -> Iterator[list[str]]:
    ids = list(connection.execute(sa.select(_standings.c.candidate_id).where(*ranked)).scalars())
    for start in range(0, len(ids), _CHUNK // 2):
        yield ids[start : start + _CHUNK // 2]
