"""Each kind of damage is planted in a real archive, and found."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from db.archive import Archive
from db.checking import LOOKS, check
from db.copying import copy
from db.testing_values import TASK, proposal, report
from sandbox.failure import Failure, FailureKind
from tests.support.command import discovery
from tests.support.postgres import new_database
from tests.support.schemas import SAVED

DAMAGE = [
    ("UPDATE trials SET candidate_id = 'f00' WHERE id = 1", "a row names one of candidates that is not there"),
    ("DELETE FROM tasks WHERE evaluator = 'test.other'", "a row names one of tasks that is not there"),
    ("DELETE FROM metrics WHERE trial_id = 1", "a finished trial without a metric"),
    ("UPDATE trials SET finished_at = NULL WHERE id = 1", "a trial that ended at no time"),
    ("UPDATE trials SET finished_at = created_at WHERE status = 'running'", "a trial that ended at no time"),
    ("UPDATE trials SET failure_kind = 'CRASH' WHERE id = 1", "a trial that failed without a kind of failure"),
    ("UPDATE trials SET status = 'failed' WHERE id = 1", "a trial that failed without a kind of failure"),
    ("UPDATE trials SET attempts = 3 WHERE id = 1", "a trial that counts other attempts than it has"),
    ("UPDATE attempts SET ended_at = NULL WHERE trial_id = 1", "a trial that runs without an attempt"),
    ("UPDATE attempts SET ended_at = started_at", "a trial that runs without an attempt"),
    ("UPDATE proposals SET judged_at = NULL", "a proposal that was judged at no time"),
    ("UPDATE proposals SET failure_kind = 'CRASH' WHERE state = 'replied'", "a proposal with a candidate or a failure"),
    ("UPDATE proposals SET candidate_id = NULL WHERE number = 1", "a proposal that was accepted without a candidate"),
    (
        "UPDATE proposals SET reply_text = NULL, reply_problem = 'refused' WHERE number = 1",
        "a proposal without a reply that says why there is no answer in it",
    ),
    *(
        (f"UPDATE {table} SET failure_kind = 'BOREDOM'", "a failure of a kind that this version does not know")
        for table in ("proposals", "trials", "attempts", "standings")
    ),
    ("UPDATE candidates SET source = '# x' || source", "a candidate's code is not what its id is the hash of"),
    ("UPDATE prompt_parts SET text = 'x' WHERE role = 'user'", "a text of prompts is not what its key"),
    ("DELETE FROM prompt_links WHERE position = 1", "a prompt has other parts than it had"),
    ("UPDATE trial_arrays SET data = x'504b0304' WHERE trial_id = 2", "damaged arrays"),
    ("UPDATE trial_arrays SET schema = 9 WHERE trial_id = 2", "arrays in a form that this version does not know"),
    ("UPDATE proposal_texts SET text = 'x'", "a text search does not look through"),
    ("DELETE FROM proposal_texts", "a text search does not look through"),
    (
        "INSERT INTO proposal_search(proposal_search, rowid, text) "
        "SELECT 'delete', proposal_id, text FROM proposal_texts WHERE proposal_id = 2",
        "the index of text searches lacks a proposal",
    ),
    ("DELETE FROM campaigns", "a row names one of campaigns that is not there"),
    ("UPDATE campaigns SET config = '{'", "a value that cannot be read"),
    ("UPDATE candidates SET gate = '{' WHERE gate IS NOT NULL", "a value that cannot be read"),
    ("UPDATE proposals SET thought = x'00ff' WHERE number = 1", "a value that cannot be read"),
    ("UPDATE proposals SET created_at = 'yesterday'", "a value that cannot be read"),
    ("UPDATE trials SET seed = 'seven' WHERE id = 1", "a value that cannot be read"),
    ("UPDATE standings SET score = score + 1e-9", "a standing says something else than its trials"),
    ("UPDATE standings SET trials_done = 1 WHERE status = 'ranked'", "a standing says something else than its trials"),
    ("UPDATE means SET value = value + 1e-6", "the means of a candidate's metrics are not those of its trials"),
    ("UPDATE campaigns SET finished_at = NULL, end_reason = 'wall_s'", "a campaign that ended for no reason"),
    ("UPDATE campaigns SET finished_at = created_at, end_reason = NULL", "a campaign that ended for no reason"),
    (
        "UPDATE campaigns SET finished_at = created_at, end_reason = 'boredom'",
        "a campaign that ended for a reason that",
    ),
    ("UPDATE campaigns SET end_detail = x'00ff'", "a value that cannot be read"),
    (
        "UPDATE candidates SET gate = json_set(gate, '$.notes', json('[7]')) WHERE gate NOT NULL",
        "a report of gate or probe",
    ),
    (
        "UPDATE candidates SET probe = json_set(probe, '$.conditions.batch', 1000000000) WHERE fingerprint NOT NULL",
        "a report of gate or probe",
    ),
    ("DELETE FROM means WHERE name = 'kl'", "the means of a candidate's metrics are not those of its trials"),
]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return Path(shutil.copy(SAVED, tmp_path / "saved.db"))


def damage(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute(statement).rowcount > 0


@pytest.mark.parametrize(
    ("statement", "what"),
    [("DROP TABLE means", "a table is not there"), ("ALTER TABLE trials DROP COLUMN seconds", "a column")],
)
def test_what_is_missing_is_found(saved: Path, statement: str, what: str) -> None:
    with closing(sqlite3.connect(saved, isolation_level=None)) as connection:
        connection.execute("DROP INDEX ix_trials_usage")
        connection.execute(statement)
    (problem,) = check(saved)
    assert problem.what.startswith(what)


@pytest.mark.parametrize(("statement", "what"), DAMAGE)
def test_damage_is_found(saved: Path, statement: str, what: str) -> None:
    damage(saved, statement)
    assert any(problem.what.startswith(what) for problem in check(saved))


def test_a_damaged_file_is_found(saved: Path) -> None:
    with closing(sqlite3.connect(saved, isolation_level=None)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_means_value'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    content = bytearray(saved.read_bytes())
    content[(page - 1) * size + 200 : page * size] = bytes(size - 200)
    saved.write_bytes(content)
    ended = discovery("archive", "check", "--archive", saved)
    assert ended.code == 1
    assert "damaged" in ended.stdout + ended.stderr


def test_a_whole_archive_has_no_problem(saved: Path, server: Any) -> None:
    assert list(check(saved)) == []
    url = new_database(server)
    copy(saved, url)
    assert list(check(url)) == []


def test_what_campaigns_leave_behind_is_no_problem(tmp_path: Path) -> None:
    """Refused, failed, lost and hostile things, and a driver that ends in the middle."""
    path = tmp_path / "a.db"
    with Archive(path, create=True) as archive:
        campaign = archive.start_campaign("c", {}, task=TASK, metric="score", higher_is_better=False, seeds=(0, 1)).id
        archive.record_request(campaign, 7, 10, 20)
        refused = proposal(0, failure=Failure(FailureKind.CRASH, "ValueError: \x1b[31m"))
        archive.record_known(campaign, refused)
        archive.record_known(
            campaign, proposal(1, body="-policy_chosen  # \x00", name="postgresql://me:hunter2@host/db")
        )
        archive.record_known(campaign, proposal(2, repair_of=0))
        archive.record_reply(campaign, proposal(3, candidate=None, gate=None, probe=None))
        failed = Failure(FailureKind.TIMEOUT, "slow")
        for index in (1, 2):
            made = archive.proposals(campaign)[index].candidate
            assert made is not None
            trial = archive.ensure_trial(campaign, made.id, TASK.id, 0)
            archive.finish_trial(trial.id, archive.start_attempt(trial.id, "w"), report(0, 0.5))
        other = archive.ensure_trial(campaign, made.id, TASK.id, 1)
        archive.fail_trial(other.id, archive.start_attempt(other.id, "w"), failed, final=False)
        archive.fail_trial(other.id, archive.start_attempt(other.id, "w"), failed, final=True)
    assert list(check(path)) == []


def test_the_command_says_what_is_wrong(saved: Path) -> None:
    ended = discovery("archive", "check", "--archive", saved)
    assert (ended.code, "nothing is wrong" in ended.stdout) == (0, True)
    damage(saved, "DELETE FROM metrics WHERE name = 'score'")
    ended = discovery("archive", "check", "--archive", saved)
    assert ended.code == 1
    assert "a standing says something else than its trials: candidate" in ended.stdout
    found = json.loads(discovery("archive", "check", "--archive", saved, "--json").stdout)
    assert found["looked_at"] == list(LOOKS)
    assert found["problems"]
    ended = discovery("archive", "check", "--archive", saved.with_name("none.db"))
    assert (ended.code, ended.stderr.count("\n")) == (2, 1)
