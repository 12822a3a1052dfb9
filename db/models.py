"""The archive's tables. `docs/archive.md` says what each holds; `db/migrations` brings older files up to them.

The driver writes with Core statements, a few per state change, so these are plain tables and not mapped classes.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table, UniqueConstraint

from db.types import BigWhole, Blob, HashText, Real, RowId, SafeJSON, SafeText, SourceText, UTCDateTime, Whole

SCHEMA_VERSION = "0007"  # revision of the newest migration
VERSION_TABLE = "archive_version"

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Hash = HashText  # sha256, hex

tasks = Table(
    "tasks",
    metadata,
    Column("id", Hash, primary_key=True),
    Column("evaluator", SafeText, nullable=False),
    Column("version", Whole, nullable=False),
    Column("options", SafeJSON(dict), nullable=False),
    Column("source", SafeText, nullable=False),
    Column("licence", SafeText, nullable=False),
    Column("data_sha256", SafeText, nullable=False),
    Column("facts", SafeJSON(dict)),  # what preparing it measured; NULL until it has been prepared
    Column("created_at", UTCDateTime, nullable=False),
)

campaigns = Table(
    "campaigns",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("name", SafeText, nullable=False, unique=True),
    Column("config", SafeJSON(dict), nullable=False),
    Column("status", SafeText, nullable=False),
    Column("task_id", Hash, ForeignKey("tasks.id"), nullable=False),  # with metric and seeds: what ranks
    Column("metric", SafeText, nullable=False),
    Column("higher_is_better", sa.Boolean, nullable=False),
    Column("seeds", SafeJSON(list)),  # seeds that count for the ranking; NULL: all of them
    Column("created_at", UTCDateTime, nullable=False),
    Column("finished_at", UTCDateTime),
    Column("end_reason", SafeText),  # NULL while it runs, and where its driver was killed (see `db/endings.py`)
    Column("end_detail", SafeText),
)

# Who drives a campaign: one process at a time. `epoch` grows with every driver, and each write of a driver checks that it
# is still its own. No time in here is ever compared: two machines' clocks differ (see `db/lease.py`).
leases = Table(
    "leases",
    metadata,
    Column("campaign_id", RowId, ForeignKey("campaigns.id"), primary_key=True, autoincrement=False),
    Column("epoch", Whole, nullable=False),
    Column("held", sa.Boolean, nullable=False),  # false once its driver has ended in order
    Column("beats", BigWhole, nullable=False),  # grows every few seconds while the driver lives
    Column("host", SafeText, nullable=False),
    Column("pid", BigWhole, nullable=False),
    Column("process", SafeText, nullable=False),  # what names a process of the machine for good: boot, start time
    Column("since", UTCDateTime, nullable=False),
    Column("beat_at", UTCDateTime, nullable=False),
)

candidates = Table(
    "candidates",
    metadata,
    Column("id", Hash, primary_key=True),
    Column("contract", SafeText, nullable=False),
    Column("source", SourceText, nullable=False),
    Column("source_bytes", Blob),  # the exact text where `source` could not hold it (NUL, lone surrogates)
    Column("parameters", SafeJSON(list), nullable=False),
    Column("gate", SafeJSON(dict)),
    Column("probe", SafeJSON(dict)),
    Column("fingerprint", Blob),  # float64, little-endian, row by row
    Column("fingerprint_rows", Whole),
    Column("created_at", UTCDateTime, nullable=False),
)

prompt_parts = Table(
    "prompt_parts",
    metadata,
    Column("sha256", Hash, primary_key=True),
    Column("role", SafeText, nullable=False),
    Column("text", SafeText, nullable=False),
)

prompts = Table(
    "prompts",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("sha256", Hash, nullable=False, unique=True),
)

prompt_links = Table(
    "prompt_links",
    metadata,
    Column("prompt_id", RowId, ForeignKey("prompts.id"), primary_key=True, autoincrement=False),
    Column("position", Whole, primary_key=True, autoincrement=False),
    Column("part_sha256", Hash, ForeignKey("prompt_parts.sha256"), nullable=False, index=True),
)

proposals = Table(
    "proposals",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("campaign_id", RowId, ForeignKey("campaigns.id"), nullable=False),
    Column("number", Whole, nullable=False),
    Column("state", SafeText, nullable=False),
    Column("origin", SafeText, nullable=False),
    Column("proposer", SafeText, nullable=False),
    Column("name", SafeText, nullable=False),
    Column("thought", SafeText, nullable=False),
    Column("repair_of", Whole),  # number of another proposal of the campaign
    Column("prompt_id", RowId, ForeignKey("prompts.id")),
    Column("reply_text", SafeText),  # NULL where nobody was asked (known objectives, files)
    Column("reply_model", SafeText),
    Column("reply_latency_s", Real),
    Column("reply_attempts", Whole),
    Column("prompt_tokens", BigWhole),
    Column("completion_tokens", BigWhole),
    Column("candidate_id", Hash, ForeignKey("candidates.id"), index=True),
    Column("failure_kind", SafeText),
    Column("failure_message", SafeText),
    Column("duplicate_of", SafeText),
    Column("created_at", UTCDateTime, nullable=False),
    Column("judged_at", UTCDateTime),
    Column("reply_cost", Real),  # US dollars; NULL where nobody knows the price
    Column("reply_problem", SafeText),  # why there is no answer in the reply; NULL where there is one
    UniqueConstraint("campaign_id", "number"),
    CheckConstraint("state IN ('replied', 'judged')", name="state"),
    Index("ix_proposals_judged", "campaign_id", "judged_at"),
)

# What a text search looks through, apart from prompts and replies, which are many times as long: name, thought and code of
# a judged proposal, case folded.
proposal_texts = Table(
    "proposal_texts",
    metadata,
    Column("proposal_id", RowId, ForeignKey("proposals.id"), primary_key=True, autoincrement=False),
    Column("text", SafeText, nullable=False),
)

# Which of them hold which three characters in a row, so that SQLite finds a text without reading them all. PostgreSQL
# reads them: its own index of this kind is an extension that not every server has.
SEARCH_INDEX = (
    """CREATE VIRTUAL TABLE proposal_search USING fts5(
        text, content='proposal_texts', content_rowid='proposal_id', tokenize='trigram case_sensitive 1', detail='none'
    )""",
    """CREATE TRIGGER proposal_texts_added AFTER INSERT ON proposal_texts BEGIN
        INSERT INTO proposal_search(rowid, text) VALUES (new.proposal_id, new.text);
    END""",
    """CREATE TRIGGER proposal_texts_removed AFTER DELETE ON proposal_texts BEGIN
        INSERT INTO proposal_search(proposal_search, rowid, text) VALUES ('delete', old.proposal_id, old.text);
    END""",
    """CREATE TRIGGER proposal_texts_changed AFTER UPDATE ON proposal_texts BEGIN
        INSERT INTO proposal_search(proposal_search, rowid, text) VALUES ('delete', old.proposal_id, old.text);
        INSERT INTO proposal_search(rowid, text) VALUES (new.proposal_id, new.text);
    END""",
)
for _made in SEARCH_INDEX:
    sa.event.listen(proposal_texts, "after_create", sa.DDL(_made).execute_if(dialect="sqlite"))  # type: ignore[no-untyped-call]
proposal_search = sa.table("proposal_search", sa.column("rowid", sa.Integer), sa.column("text", sa.Text))

# Questions to a language model that have no reply here: on their way, or lost with a driver. Stored before they are sent and
# removed with the reply's arrival, so that what a killed driver had asked for is known, and counted.
requests = Table(
    "requests",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("campaign_id", RowId, ForeignKey("campaigns.id"), nullable=False, index=True),
    Column("number", Whole, nullable=False),  # of the proposal that was asked for
    Column("lost", sa.Boolean, nullable=False),
    Column("prompt_tokens", BigWhole, nullable=False),  # the most that the question can have taken
    Column("completion_tokens", BigWhole, nullable=False),
    Column("sent_at", UTCDateTime, nullable=False),
    Column("cost", Real),  # US dollars, at these tokens; NULL where nobody knows the price
)

proposal_parents = Table(
    "proposal_parents",
    metadata,
    Column("proposal_id", RowId, ForeignKey("proposals.id"), primary_key=True, autoincrement=False),
    Column("position", Whole, primary_key=True, autoincrement=False),
    # no foreign key: a reply that has been paid for must never be refused because of a parent
    Column("parent_id", Hash, nullable=False, index=True),
)

# A candidate's place in one campaign, kept up to date with each verdict and trial, so that listings read an index instead
# of averaging millions of metric rows.
standings = Table(
    "standings",
    metadata,
    Column("campaign_id", RowId, ForeignKey("campaigns.id"), primary_key=True, autoincrement=False),
    Column("candidate_id", Hash, ForeignKey("candidates.id"), primary_key=True),
    Column("proposal_id", RowId, ForeignKey("proposals.id"), nullable=False),
    Column("number", Whole, nullable=False),
    Column("origin", SafeText, nullable=False),
    Column("proposer", SafeText, nullable=False),
    Column("status", SafeText, nullable=False),
    Column("failure_kind", SafeText),
    Column("failure_message", SafeText),
    Column("score", Real),  # mean of the ranking metric; NULL while unranked
    Column("sort_key", Real),  # the score turned so that lower is better; NULL while unranked
    Column("trials_done", Whole, nullable=False),
    Column("trials_failed", Whole, nullable=False),
    Column("unconfined", sa.Boolean, server_default=sa.false(), nullable=False),  # any trial ran without the sandbox
    Column("measured_at", UTCDateTime),  # when the last of the trials that rank it ended; NULL while unranked
    # inputs that tell the candidate more than labels do, with a space between; empty: it sees labels alone
    Column("privileged", SafeText, server_default="", nullable=False),
    CheckConstraint("status IN ('refused', 'accepted', 'ranked', 'failed')", name="status"),
    Index("ix_standings_rank", "campaign_id", "sort_key", "number", "proposal_id"),
    Index("ix_standings_status", "campaign_id", "status", "number"),
    Index("ix_standings_candidate_id", "candidate_id"),
    Index("ix_standings_proposal_id", "proposal_id"),
    Index("ix_standings_measured", "campaign_id", "measured_at"),
    Index("ix_standings_origin", "campaign_id", "origin", "sort_key", "number"),  # a few known losses among very many
)

# A ranked candidate's metrics, each the mean over the seeds that rank it, by the proposal that its standing is of: a number
# is found sooner than a hash. Not metrics that are a part of another (`frontier/few_pairs`): few ask for them.
means = Table(
    "means",
    metadata,
    Column("proposal_id", RowId, ForeignKey("proposals.id"), primary_key=True, autoincrement=False),
    Column("name", SafeText, primary_key=True),
    Column("campaign_id", RowId, ForeignKey("campaigns.id"), nullable=False),
    Column("value", Real, nullable=False),
    Index("ix_means_value", "campaign_id", "name", "value", "proposal_id"),
    sqlite_with_rowid=False,
)

trials = Table(
    "trials",
    metadata,
    Column("id", RowId, primary_key=True),
    Column("campaign_id", RowId, ForeignKey("campaigns.id"), nullable=False),
    Column("task_id", Hash, ForeignKey("tasks.id"), nullable=False),
    Column("candidate_id", Hash, ForeignKey("candidates.id"), nullable=False),
    Column("seed", BigWhole, nullable=False),
    Column("status", SafeText, nullable=False),
    Column("attempts", Whole, nullable=False),
    Column("failure_kind", SafeText),
    Column("failure_message", SafeText),
    Column("details", SafeJSON(dict)),  # timings, device, threads, versions, memory
    Column("created_at", UTCDateTime, nullable=False),
    Column("finished_at", UTCDateTime),
    Column("device", SafeText),  # NULL until one attempt has reported
    Column("seconds", Real, server_default="0", nullable=False),  # that its attempts held a worker, lost ones too
    UniqueConstraint("campaign_id", "task_id", "candidate_id", "seed", name="uq_trials_once"),
    CheckConstraint("status IN ('pending', 'running', 'done', 'failed')", name="status"),
    Index("ix_trials_candidate", "candidate_id", "campaign_id"),
    # all that is counted of trials
    Index("ix_trials_usage", "campaign_id", "status", "device", "attempts", "seconds"),
    Index("ix_trials_finished", "campaign_id", "finished_at"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("trial_id", RowId, ForeignKey("trials.id"), primary_key=True, autoincrement=False),
    Column("number", Whole, primary_key=True, autoincrement=False),
    Column("worker", SafeText, nullable=False),
    Column("started_at", UTCDateTime, nullable=False),
    Column("ended_at", UTCDateTime),  # NULL while it runs
    Column("failure_kind", SafeText),
    Column("failure_message", SafeText),
    Column("unconfined", sa.Boolean, server_default=sa.false(), nullable=False),  # ran without the sandbox
)

metrics = Table(
    "metrics",
    metadata,
    Column("trial_id", RowId, ForeignKey("trials.id"), primary_key=True, autoincrement=False),
    Column("name", SafeText, primary_key=True),
    Column("position", Whole, nullable=False),  # order in the report
    Column("value", Real, nullable=False),
    Column("higher_is_better", sa.Boolean, nullable=False),
    Column("unit", SafeText, nullable=False),
    Column("stderr", Real),
    sqlite_with_rowid=False,
)

trial_arrays = Table(
    "trial_arrays",
    metadata,
    Column("trial_id", RowId, ForeignKey("trials.id"), primary_key=True, autoincrement=False),
    Column("schema", Whole, nullable=False),
    Column("data", Blob, nullable=False),
)

# Alembic's own bookkeeping, created here so that a fresh archive needs no migration run.
version_table = Table(
    VERSION_TABLE,
    sa.MetaData(),
    Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)
