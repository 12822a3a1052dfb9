"""The archive in a real PostgreSQL server, which the test starts by itself and without root."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from db.archive import Archive, ArchiveError
from db.testing import ArchiveConformance
from db.testing_listing import ListingConformance
from tests.support.postgres import new_database


class TestPostgresqlArchive(ArchiveConformance, ListingConformance):
    server: ClassVar[Any]

    @pytest.fixture(autouse=True)
    def _server(self, server: Any) -> None:
        type(self).server = server

    def make_archive(self, tmp_path: Path) -> Archive:
        return Archive(new_database(self.server), create=True)

    def test_migrations_make_the_same_tables(self) -> None:
        from tests.support.schemas import assert_same_schema

        assert_same_schema(new_database(self.server), new_database(self.server))

    def test_faults_are_explained(self) -> None:
        url = sa.make_url(new_database(self.server))
        with pytest.raises(ArchiveError, match="holds no archive"):
            Archive(url.render_as_string(hide_password=False))
        missing = url.set(database="nowhere").render_as_string(hide_password=False)
        with pytest.raises(ArchiveError, match="does not exist: create it") as caught:
            Archive(missing, create=True)
        assert not caught.value.fault
        with pytest.raises(ArchiveError, match="no database answers at") as caught:
            Archive("postgresql+psycopg://me:hunter2@127.0.0.1:9/archive", create=True)
        assert "hunter2" not in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_foreign_database_is_refused(self) -> None:
        url = new_database(self.server)
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE theirs (id integer)")
        engine.dispose()
        with pytest.raises(ArchiveError, match="belongs to another program"):
            Archive(url, create=True)
