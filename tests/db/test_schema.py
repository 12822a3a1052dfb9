"""Creating, migrating and recognising archives."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from db.archive import Archive, ArchiveError
from db.checking import check
from db.endings import Ending, Reason
from db.models import SCHEMA_VERSION, VERSION_TABLE
from db.records import EntryFilter
from db.schema import MIGRATIONS, upgrade
from db.testing_values import CONDITIONS, OTHER_TASK, TASK, proposal, same_fingerprint
from db.types import UTCDateTime
from tests.support.command import discovery
from tests.support.postgres import new_database
from tests.support.schemas import assert_same_schema

SAVED = sorted((Path(__file__).parent / "assets").glob("archive_v*.sqlite3"))


def test_migrations_make_the_same_tables_as_the_models(tmp_path: Path) -> None:
    (tmp_path / "migrated.db").touch()
    assert_same_schema(f"sqlite:///{tmp_path / 'created.db'}", f"sqlite:///{tmp_path / 'migrated.db'}")


def test_there_is_a_saved_archive_of_every_version() -> None:
    assert [path.stem for path in SAVED] == [f"archive_v{n}" for n in range(1, int(SCHEMA_VERSION) + 1)]


def in_postgresql(saved: Path, url: str, version: str) -> None:
    """The rows of a saved file in a PostgreSQL database of the same schema version, made by the migrations."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    source, target = sa.create_engine(f"sqlite:///{saved}"), sa.create_engine(url)
    with source.connect() as giving, target.begin() as taking:
        config.attributes["connection"] = taking
        command.upgrade(config, version)
        tables = sa.MetaData()
        tables.reflect(taking)
        for table in tables.sorted_tables:
            if table.name == VERSION_TABLE:
                continue
            as_typed = sa.Table(table.name, sa.MetaData(), *(sa.Column(c.name, generic(c.type)) for c in table.columns))
            if rows := [dict(r._mapping) for r in giving.execute(sa.select(as_typed))]:
                taking.execute(table.insert(), rows)
    source.dispose()
    target.dispose()


def generic(kind: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """How SQLite's file holds what PostgreSQL has a type of its own for."""
    return UTCDateTime() if isinstance(kind, sa.DateTime) else kind.as_generic()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("saved", SAVED, ids=lambda path: path.stem)
def test_an_archive_that_another_version_wrote_is_read(
    saved: Path, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    version = f"{int(saved.stem.removeprefix('archive_v')):04}"
    if database == "sqlite":
        path = str(shutil.copy(saved, tmp_path / "saved.db"))
    else:
        path = new_database(request.getfixturevalue("server"))
        in_postgresql(saved, path, version)
    assert upgrade(path) == version
    assert list(check(path)) == []
    with Archive(path) as archive:
        campaign = archive.campaign("saved")
        assert (campaign.name, campaign.proposals, campaign.candidates, campaign.trials_done) == ("saved", 4, 2, 6)
        best, known, refused = archive.entries("saved")
        assert (best.name, known.origin, refused.status) == ("α loss", "known", "refused")
        assert best.score is not None
        assert best.score.by_seed == {0: 0.75, 1: 0.751}
        assert best.parents == (known.candidate.id,)
        expected = proposal(1).probe
        assert expected is not None
        assert same_fingerprint(archive.entry(best.candidate.id).fingerprint, expected.fingerprint)
        assert archive.scores("saved", OTHER_TASK.id, "kl")[best.candidate.id].by_seed == {100: 10 - 0.85}
        if version >= "0006":
            ended = archive.campaign("ended").ended
            assert ended == Ending(Reason.TOKENS, "budget.tokens 30,000 is used up")
            read = archive.proposal_of(best.candidate.id, "saved")
            assert read.gate is not None
            assert read.gate.notes == ("an import that nothing used is left out",)
            assert read.probe is not None
            assert read.probe.fingerprint is not None
            assert read.probe.fingerprint.conditions == CONDITIONS
        if version >= "0007":
            assert best.privileged == ("chosen_score",)
            assert archive.entries("saved", EntryFilter(privileged=True)) == [best]
        # what later versions keep beside the trials
        assert archive.means("saved", ["kl"])[best.candidate.id] == {"kl": pytest.approx(10 - 0.7505, abs=1e-12)}
        assert archive.entries("saved", EntryFilter(where="kl < 9.4")) == [best]
        assert [e.name for e in archive.entries("saved", EntryFilter(text="Α LOSS"))] == ["α loss"]
        assert [s.candidate_id for s in archive.scored("saved")] == [known.candidate.id, best.candidate.id]
        assert {d.device: d.trials for d in archive.device_times("saved")}["cpu"] == 6
        trial = archive.trials(best.candidate.id, task=TASK.id)[0]
        assert archive.arrays(trial.id)["curve"].tolist() == [0, 1, 2, 3]
        (unread,) = archive.open_proposals("saved")
        assert unread.prompt == proposal(3).prompt
        resumed = archive.start_campaign("saved", {"seed": 1}, task=TASK, metric="score", higher_is_better=True)
        assert resumed.resumed
        assert archive.totals("saved").trials == {"done": 6, "pending": 1}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_what_an_older_archive_holds_is_told_apart_by_what_it_reads(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Before 0007 nothing said which losses are told more than labels; the inputs that they read do."""
    path = str(shutil.copy(SAVED[5], tmp_path / "saved.db"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (best,) = connection.execute("SELECT candidate_id FROM standings ORDER BY sort_key LIMIT 1").fetchone()
        reads = json.dumps(["beta", "preference_probability", "chosen_score"])
        connection.execute("UPDATE candidates SET parameters = ? WHERE id = ?", (reads, best))
        gate = json.dumps({"violations": [], "parameters": ["chosen_score", "beta"]})
        connection.execute("UPDATE candidates SET gate = ? WHERE id = ?", (gate, best))
        connection.execute("UPDATE candidates SET contract = 'theirs' WHERE id <> ?", (best,))
    if database == "postgresql":
        saved, path = path, new_database(request.getfixturevalue("server"))
        in_postgresql(Path(saved), path, "0006")
    upgrade(path)
    with Archive(path) as archive:
        assert {e.candidate.id: e.privileged for e in archive.entries("saved") if e.privileged} == {
            best: ("chosen_score", "preference_probability")
        }
        gate_report = archive.proposal_of(best, "saved").gate
        assert gate_report is not None
        assert gate_report.privileged == ("chosen_score",)


def test_opening_needs_no_migration_tool(tmp_path: Path) -> None:
    code = (
        "import sys; from db.archive import Archive; Archive(sys.argv[1], create=True).close();"
        "print({'alembic', 'torch', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.db")], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def with_version(version: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        Archive(path, create=True).close()
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE archive_version SET version_num = ?", (version,))

    return make


def theirs(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE recipes (id integer)")


def truncated(path: Path) -> None:
    Archive(path, create=True).close()
    path.write_bytes(path.read_bytes()[:30_000] + os.urandom(5_000))


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (with_version("9999"), "newer version.*pip install -U objective-discovery"),
        (with_version("0000"), "older schema 0000.*discovery archive upgrade"),
        (with_version("main"), "belongs to another program"),
        (theirs, "belongs to another program"),
        (lambda path: path.write_text("Dear diary, " * 500), "not an archive, or it is damaged"),
        (lambda path: path.mkdir(), "is a folder: name a file in it"),
        (lambda path: os.mkfifo(path), "is not a file"),
    ],
    ids=["newer", "older", "foreign version", "foreign tables", "text", "folder", "pipe"],
)
def test_what_is_no_archive_of_ours_is_refused(
    tmp_path: Path, make: Callable[[Path], None], says: str, create: bool
) -> None:
    path = tmp_path / "a.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ArchiveError, match=says) as caught:
        Archive(path, create=create)
    assert "\n" not in str(caught.value)
    assert not caught.value.fault
    if before is not None:
        assert path.read_bytes() == before, "a refused file must not be touched"


def test_a_damaged_archive_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    truncated(path)
    with pytest.raises(ArchiveError, match=r"damaged|failed"), Archive(path) as archive:
        archive.start_campaign("x", {}, task=TASK, metric="score", higher_is_better=True)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "has no name"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        (":memory:", "names no file"),
        ("file::memory:?cache=shared", "names no file"),
        ("sqlite:///file:x?mode=memory&uri=true", "names no file"),
        ("a" * 253, "too long"),
        ("sqlite:///x/" + "é" * 126, "too long"),
        ("mysql://me:hunter2@host/db", "cannot live in 'mysql'"),
        ("postgresql+asyncpg://me:hunter2@host/db", "cannot live in"),
        ("sqlite:\\\\x://me:hunter2@y", "cannot read the archive URL|cannot live"),
        ("postgresql://me:hunter2@host:port/db", "cannot read the archive URL"),
    ],
)
def test_wrong_urls_are_refused_without_their_password(url: str, says: str) -> None:
    with pytest.raises(ArchiveError, match=says) as caught:
        Archive(url, create=True)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_archive_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="there is no archive at"):
        Archive(tmp_path / "deep" / "a.db")
    assert not (tmp_path / "deep").exists()
    (tmp_path / "empty.db").touch()
    with pytest.raises(ArchiveError, match="holds no archive"):
        Archive(tmp_path / "empty.db")


def test_a_path_under_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for create, said in ((True, "file is a file, not a folder"), (False, "there is no archive")):
        with pytest.raises(ArchiveError, match=said):
            Archive(tmp_path / "file" / "a.db", create=create)
    with pytest.raises(ArchiveError, match="file is a file, not a folder"):
        Archive(tmp_path / "file" / "below" / "a.db", create=True)


def test_upgrade_command(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    ended = discovery("archive", "upgrade", "--archive", path)
    assert (ended.code, "there is no archive" in ended.stderr) == (2, True)
    path.touch()
    made = json.loads(discovery("archive", "upgrade", "--archive", path, "--json").stdout)
    assert made == {"archive": str(path), "before": None, "after": SCHEMA_VERSION}
    assert "already" in discovery("archive", "upgrade", "--archive", path).stdout
    with_version("9999")(tmp_path / "new.db")
    ended = discovery("archive", "upgrade", "--archive", tmp_path / "new.db")
    assert (ended.code, "newer version" in ended.stderr) == (2, True)
