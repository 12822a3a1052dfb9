"""Indexes: of what texts hold, in SQLite, and of the few known losses among very many."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ADDED = "INSERT INTO proposal_search(rowid, text) VALUES (new.proposal_id, new.text);"
_REMOVED = "INSERT INTO proposal_search(proposal_search, rowid, text) VALUES ('delete', old.proposal_id, old.text);"
_TRIGGERS = {
    "added": ("INSERT", _ADDED),
    "removed": ("DELETE", _REMOVED),
    "changed": ("UPDATE", f"{_REMOVED} {_ADDED}"),
}


def upgrade() -> None:
    op.create_index("ix_standings_origin", "standings", ["campaign_id", "origin", "sort_key", "number"])
    if op.get_bind().dialect.name != "sqlite":
        return
    op.execute(
        "CREATE VIRTUAL TABLE proposal_search USING fts5(text, content='proposal_texts', content_rowid='proposal_id', "
        "tokenize='trigram case_sensitive 1', detail='none')"
    )
    for name, (event, body) in _TRIGGERS.items():
        op.execute(f"CREATE TRIGGER proposal_texts_{name} AFTER {event} ON proposal_texts BEGIN {body} END")
    op.execute("INSERT INTO proposal_search(proposal_search) VALUES ('rebuild')")


def downgrade() -> None:
    op.drop_index("ix_standings_origin", "standings")
    if op.get_bind().dialect.name == "sqlite":
        for name in _TRIGGERS:
            op.execute(f"DROP TRIGGER proposal_texts_{name}")
        op.execute("DROP TABLE proposal_search")
