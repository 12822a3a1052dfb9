"""The archive in an SQLite file."""

from __future__ import annotations

from pathlib import Path

from db.archive import Archive
from db.testing import ArchiveConformance
from db.testing_listing import ListingConformance


class TestSqliteArchive(ArchiveConformance, ListingConformance):
    def make_archive(self, tmp_path: Path) -> Archive:
        return Archive(tmp_path / "new folder" / "archive.db", create=True)
