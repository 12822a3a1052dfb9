"""Whole archives copied between real databases."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

import db.copying
from db.archive import Archive, ArchiveError
from db.copying import copy
from db.engine import connect_engine, parse_target
from db.models import metadata
from db.testing_values import OTHER_TASK, TASK, proposal, report
from tests.support.command import discovery
from tests.support.postgres import new_database
from tests.support.schemas import SAVED

STARTED = {"task": TASK, "metric": "score", "higher_is_better": True, "seeds": (0, 1)}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = Path(shutil.copy(SAVED, tmp_path / "saved.db"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # as every archive that is in use
    return path


def content(url: str | Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row as its columns give it, leases' `held` left out."""
    engine = connect_engine(parse_target(url))
    found = {}
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            columns = [c for c in table.columns if c.name != "held"]
            rows = [tuple(r) for r in connection.execute(sa.select(*columns))]
            found[table.name] = sorted(rows, key=repr)
    engine.dispose()
    return found


def test_a_copy_goes_to_postgresql_and_back(saved: Path, tmp_path: Path, server: Any) -> None:
    there, back = new_database(server), tmp_path / "back.db"
    counts = copy(saved, there)
    assert copy(there, back) == counts
    assert counts["trials"] == 7
    assert content(saved) == content(there) == content(back)


@pytest.mark.parametrize("to", ["sqlite", "postgresql"])
def test_a_campaign_goes_on_in_the_copy(saved: Path, tmp_path: Path, server: Any, to: str) -> None:
    url = str(tmp_path / "copy.db") if to == "sqlite" else new_database(server)
    copy(saved, url)
    with Archive(url) as archive:
        lease = archive.lease("saved")
        assert lease is not None
        assert not lease.held
        campaign = archive.start_campaign("saved", {"seed": 1}, **STARTED).id
        made = proposal(9)
        assert made.candidate is not None
        number = archive.record_known(campaign, made)  # ids go on behind the largest one
        assert number == max(p.id or 0 for p in archive.proposals(campaign))
        trial = archive.ensure_trial(campaign, made.candidate.id, TASK.id, 0)
        archive.finish_trial(trial.id, archive.start_attempt(trial.id, "w"), report(0, 0.9))
        assert archive.top(campaign, 1)[0].candidate.id == made.candidate.id


def test_what_is_stored_is_copied_to_the_letter(saved: Path, tmp_path: Path) -> None:
    """Also what this version would not store: it has been stored."""
    with closing(sqlite3.connect(saved, isolation_level=None)) as connection:
        connection.execute("UPDATE proposals SET thought = 'postgresql://me:hunter2@host/db' WHERE number = 1")
    copy(saved, tmp_path / "copy.db")
    assert "hunter2" in str(content(tmp_path / "copy.db")["proposals"])


def test_more_rows_than_are_held_in_memory(
    saved: Path, tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.copying, "_CHUNK", 2)
    there = new_database(server)
    copy(saved, there)
    copy(there, tmp_path / "back.db")
    assert content(saved) == content(tmp_path / "back.db")


def test_a_copy_is_of_one_moment(saved: Path, tmp_path: Path) -> None:
    before = content(saved)

    def meddle(what: str, rows: int) -> None:
        if what == "tasks" and rows == 2:
            with Archive(saved) as other:
                other.record_task(OTHER_TASK, {"accuracy": 0.25})
                other.start_campaign("late", {}, **STARTED)

    copy(saved, tmp_path / "copy.db", meddle)
    assert content(tmp_path / "copy.db") == before != content(saved)


def test_a_copy_that_differs_is_noticed(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def alter(connection: Connection) -> None:  # before what was copied is committed
        connection.exec_driver_sql("UPDATE metrics SET value = value + 1e-9 WHERE trial_id = 3 AND name = 'kl'")

    monkeypatch.setattr("db.copying._advance_sequences", alter)
    with pytest.raises(ArchiveError, match=r"no true copy: metrics \(3, 'kl'\) differs") as caught:
        copy(saved, tmp_path / "copy.db")
    assert caught.value.fault


def test_a_damaged_source_is_named_and_nothing_is_stored(saved: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(saved, isolation_level=None)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'metrics'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    held = bytearray(saved.read_bytes())
    held[(page - 1) * size : page * size] = bytes(size)
    saved.write_bytes(held)
    with pytest.raises(ArchiveError, match=r"saved\.db is damaged: restore a backup"):
        copy(saved, tmp_path / "copy.db")
    assert not any(content(tmp_path / "copy.db").values())


def test_an_interrupted_copy_leaves_nothing(saved: Path, tmp_path: Path) -> None:
    def stop(what: str, rows: int) -> None:
        if what == "trials":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(saved, tmp_path / "copy.db", stop)
    assert not any(content(tmp_path / "copy.db").values())
    copy(saved, tmp_path / "copy.db")  # the same command again
    assert content(tmp_path / "copy.db") == content(saved)


def test_bad_input_is_one_line(saved: Path, tmp_path: Path) -> None:
    shutil.copy(saved, tmp_path / "other.db")
    shutil.copy(SAVED.with_name("archive_v1.sqlite3"), tmp_path / "old.db")
    for given, said in (
        ((saved, tmp_path / "other.db"), "is not empty"),
        ((saved, saved), "is not empty"),
        ((tmp_path / "none.db", tmp_path / "new.db"), "there is no archive"),
        ((tmp_path / "old.db", tmp_path / "new.db"), "discovery archive upgrade"),
        ((saved, "mysql://me:hunter2@host/db"), "cannot live in"),
    ):
        ended = discovery("archive", "copy", *given)
        assert (ended.code, ended.stdout) == (2, "")
        assert said in ended.stderr
        assert ended.stderr.count("\n") == 1
        assert "hunter2" not in ended.stderr
    assert not (tmp_path / "new.db").exists()


def test_the_commands_say_what_they_did(saved: Path, tmp_path: Path) -> None:
    ended = discovery("archive", "copy", saved, tmp_path / "copy.db")
    assert ended.code == 0
    assert "each compared" in ended.stdout
    assert f"Next: discovery campaigns --archive {tmp_path / 'copy.db'}" in ended.stdout
    assert '"verified": true' in discovery("archive", "copy", saved, tmp_path / "again.db", "--json").stdout
    old = shutil.copy(SAVED.with_name("archive_v1.sqlite3"), tmp_path / "old.db")
    assert "it had 0001" in discovery("archive", "upgrade", "--archive", old).stdout
    assert "already" in discovery("archive", "upgrade", "--archive", old).stdout
    assert discovery("campaigns", "--archive", old).code == 0
