"""First schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_HASH = sa.String(64)


def upgrade() -> None:
    _tasks_and_campaigns()
    _candidates_and_prompts()
    _proposals()
    _standings()
    _trials()


def _tasks_and_campaigns() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", _HASH, nullable=False),
        sa.Column("evaluator", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("licence", sa.Text(), nullable=False),
        sa.Column("data_sha256", sa.Text(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
    )
    op.create_table(
        "campaigns",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("task_id", _HASH, nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("higher_is_better", sa.Boolean(), nullable=False),
        sa.Column("seeds", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_campaigns_task_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaigns")),
        sa.UniqueConstraint("name", name=op.f("uq_campaigns_name")),
    )


def _candidates_and_prompts() -> None:
    op.create_table(
        "candidates",
        sa.Column("id", _HASH, nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("source_bytes", sa.LargeBinary(), nullable=True),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("gate", sa.JSON(), nullable=True),
        sa.Column("probe", sa.JSON(), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("fingerprint_rows", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_candidates")),
    )
    op.create_table(
        "prompt_parts",
        sa.Column("sha256", _HASH, nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_prompt_parts")),
    )
    op.create_table(
        "prompts",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("sha256", _HASH, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompts")),
        sa.UniqueConstraint("sha256", name=op.f("uq_prompts_sha256")),
    )
    op.create_table(
        "prompt_links",
        sa.Column("prompt_id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("part_sha256", _HASH, nullable=False),
        sa.ForeignKeyConstraint(["part_sha256"], ["prompt_parts.sha256"], name=op.f("fk_prompt_links_part_sha256")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_prompt_links_prompt_id")),
        sa.PrimaryKeyConstraint("prompt_id", "position", name=op.f("pk_prompt_links")),
    )
    op.create_index(op.f("ix_prompt_links_part_sha256"), "prompt_links", ["part_sha256"])


def _proposals() -> None:
    op.create_table(
        "proposals",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("campaign_id", _ROW_ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("proposer", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("thought", sa.Text(), nullable=False),
        sa.Column("repair_of", sa.Integer(), nullable=True),
        sa.Column("prompt_id", _ROW_ID, nullable=True),
        sa.Column("reply_text", sa.Text(), nullable=True),
        sa.Column("reply_model", sa.Text(), nullable=True),
        sa.Column("reply_latency_s", sa.Double(), nullable=True),
        sa.Column("reply_attempts", sa.Integer(), nullable=True),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=True),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=True),
        sa.Column("candidate_id", _HASH, nullable=True),
        sa.Column("failure_kind", sa.Text(), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("duplicate_of", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("judged_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('replied', 'judged')", name=op.f("ck_proposals_state")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_proposals_campaign_id")),
        sa.ForeignKeyConstraint(["candidate_id"], ["candidates.id"], name=op.f("fk_proposals_candidate_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_proposals_prompt_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposals")),
        sa.UniqueConstraint("campaign_id", "number", name=op.f("uq_proposals_campaign_id_number")),
    )
    op.create_index(op.f("ix_proposals_candidate_id"), "proposals", ["candidate_id"])
    op.create_table(
        "proposal_parents",
        sa.Column("proposal_id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("parent_id", _HASH, nullable=False),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposals.id"], name=op.f("fk_proposal_parents_proposal_id")),
        sa.PrimaryKeyConstraint("proposal_id", "position", name=op.f("pk_proposal_parents")),
    )
    op.create_index(op.f("ix_proposal_parents_parent_id"), "proposal_parents", ["parent_id"])


def _standings() -> None:
    op.create_table(
        "standings",
        sa.Column("campaign_id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("candidate_id", _HASH, nullable=False),
        sa.Column("proposal_id", _ROW_ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("proposer", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("failure_kind", sa.Text(), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("sort_key", sa.Double(), nullable=True),
        sa.Column("trials_done", sa.Integer(), nullable=False),
        sa.Column("trials_failed", sa.Integer(), nullable=False),
        sa.CheckConstraint("status IN ('refused', 'accepted', 'ranked', 'failed')", name=op.f("ck_standings_status")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_standings_campaign_id")),
        sa.ForeignKeyConstraint(["candidate_id"], ["candidates.id"], name=op.f("fk_standings_candidate_id")),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposals.id"], name=op.f("fk_standings_proposal_id")),
        sa.PrimaryKeyConstraint("campaign_id", "candidate_id", name=op.f("pk_standings")),
    )
    op.create_index("ix_standings_candidate_id", "standings", ["candidate_id"])
    op.create_index("ix_standings_rank", "standings", ["campaign_id", "sort_key", "number"])
    op.create_index("ix_standings_status", "standings", ["campaign_id", "status", "number"])


def _trials() -> None:
    op.create_table(
        "trials",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("campaign_id", _ROW_ID, nullable=False),
        sa.Column("task_id", _HASH, nullable=False),
        sa.Column("candidate_id", _HASH, nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failure_kind", sa.Text(), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('pending', 'running', 'done', 'failed')", name=op.f("ck_trials_status")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_trials_campaign_id")),
        sa.ForeignKeyConstraint(["candidate_id"], ["candidates.id"], name=op.f("fk_trials_candidate_id")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_trials_task_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trials")),
        sa.UniqueConstraint(
            "campaign_id",
            "task_id",
            "candidate_id",
            "seed",
            name="uq_trials_once",
        ),
    )
    op.create_index(op.f("ix_trials_candidate_id"), "trials", ["candidate_id"])
    op.create_index("ix_trials_status", "trials", ["campaign_id", "status"])
    op.create_table(
        "attempts",
        sa.Column("trial_id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure_kind", sa.Text(), nullable=True),
        sa.Column("failure_message", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name=op.f("fk_attempts_trial_id")),
        sa.PrimaryKeyConstraint("trial_id", "number", name=op.f("pk_attempts")),
    )
    op.create_table(
        "metrics",
        sa.Column("trial_id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("higher_is_better", sa.Boolean(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("stderr", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name=op.f("fk_metrics_trial_id")),
        sa.PrimaryKeyConstraint("trial_id", "name", name=op.f("pk_metrics")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "trial_arrays",
        sa.Column("trial_id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("schema", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name=op.f("fk_trial_arrays_trial_id")),
        sa.PrimaryKeyConstraint("trial_id", name=op.f("pk_trial_arrays")),
    )
