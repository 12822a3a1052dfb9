"""The archive of discovery campaigns: one SQLite file, or a PostgreSQL database."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from db.errors import ArchiveError
from db.history import Histories
from db.lineage import Lineages
from db.queries import Queries
from db.redact import redact_secrets, redact_url
from db.trial_writes import TrialWrites
from db.writes import CampaignWrites

__all__ = ["Archive", "ArchiveError", "redact_secrets", "redact_url"]


class Archive(CampaignWrites, TrialWrites, Queries, Lineages, Histories):
    """Everything that was asked, answered, run and measured.

        with Archive("runs/archive.db") as archive:
            for entry in archive.top(n=5):
                print(entry.candidate.short_id, entry.name, entry.score)

    Every change is one transaction that is committed when the call returns: a process may die at any moment and nothing
    finished is lost. The driver of a campaign is the only one that writes to that campaign; any number of processes read.
    Every method raises ArchiveError, whose message is one line for people.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
