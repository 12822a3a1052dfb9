"""`discovery run` as a person runs it: the real console script, real Ray, an evaluator that takes no time."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import sleep_evaluator
from discovery.cli.run import configuration
from tests.support.command import TRACEBACK, Ended, discovery, discovery_process, script
from tests.support.restricted import SECCOMP, denied, run_restricted

CONFIG = """
name: quick
archive: runs/quick.db
objective: {evaluator: "sleeper:SleepEvaluator", options: {seconds: SECONDS}, seeds: 2}
promotions:
  - {evaluator: "sleeper:SleepEvaluator", options: {seconds: 0.01}, seeds: 1, top: 1, baselines: [dpo]}
baselines: [dpo, ipo]
budget: {candidates: 2}
"""


def config_in(folder: Path, seconds: float = 0.01) -> Path:
    """A campaign whose evaluator is a file beside it."""
    shutil.copy(Path(sleep_evaluator.__file__), folder / "sleeper.py")
    path = folder / "quick.yaml"
    path.write_text(CONFIG.replace("SECONDS", str(seconds)))
    return path


@dataclass(frozen=True)
class Finished:
    folder: Path
    ended: Ended


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    folder = tmp_path_factory.mktemp("campaign")
    config_in(folder)
    return Finished(folder, discovery_process("run", "quick.yaml", cwd=folder, timeout_s=240))


def test_a_campaign_runs_to_its_leaderboard(finished):
    assert finished.ended.code == 0, finished.ended.stderr
    text = finished.ended.stdout
    assert TRACEBACK not in finished.ended.stderr
    for fact in (
        "Campaign quick",
        "runs/quick.db",
        "seeds 0, 1",
        "No LLM in use: losses are mutated and recombined from known ones.",
        "Campaign quick: finished.",
        "leading baseline",
        "[95% simultaneous]",
        "which the search never saw",
        "prepare  nothing to prepare for 0.01 s of sleep",
    ):
        assert fact in text, fact
    assert "\x1b" not in text
    assert len(re.findall(r"^\[ +[\d.]+ s\] trial ", text, re.MULTILINE)) == 2 * 4 + 2


def test_the_commands_it_names_work(finished, monkeypatch):
    monkeypatch.chdir(finished.folder)
    commands = re.findall(r"^  (discovery .*?)  # ", finished.ended.stdout, re.MULTILINE)
    assert [shlex.split(c)[1] for c in commands] == ["show", "export", "candidates"]
    for command in commands:
        ended = discovery(*shlex.split(command)[1:])
        assert ended.code == 0, (command, ended.stderr)
    assert "def loss" in (finished.folder / "loss.py").read_text()


def test_it_keeps_everything(finished, monkeypatch):
    monkeypatch.chdir(finished.folder)
    (campaign,) = json.loads(discovery("campaigns", "--archive", "runs/quick.db", "--json").stdout)
    assert campaign["status"] == "finished"
    assert (campaign["candidates"], campaign["trials_done"]) == (4, 10)
    assert (finished.folder / "runs" / "quick.log").read_text()


def descendants(pid: int) -> set[int]:
    """Living processes started by a process, directly or not."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(folder.name)] = int(fields[1])
    found: set[int] = set()
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level} - found
        found |= level
    return found


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_keeps_what_is_stored_and_the_same_command_resumes(tmp_path):
    config_in(tmp_path, seconds=1.0)
    command = [script(), "run", "quick.yaml"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if "] trial " in line:
            break
    started = descendants(process.pid)
    assert started, (seen, process.communicate(timeout=60))
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert TRACEBACK not in err
    assert "interrupted; everything so far is stored" in out
    assert "discovery run quick.yaml  # go on where it stopped" in out
    deadline = time.monotonic() + 20
    while alive(started) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not alive(started)
    again = discovery_process("run", "quick.yaml", cwd=tmp_path, timeout_s=240)
    assert again.code == 0, again.stderr
    done = len(re.findall(r"\] trial ", seen + out)) + len(re.findall(r"\] trial ", again.stdout))
    stored = json.loads(discovery("campaigns", "--archive", tmp_path / "runs" / "quick.db", "--json").stdout)
    assert stored[0]["trials_done"] == 10
    assert done >= 10


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("budgett.candidates=3", "did you mean 'budget'"),
        ("budget.candidates=many", "whole number"),
        ("objective.evaluator=preference.enumerabl", "preference.enumerable"),
        ("objective.metric=scor", "score"),
        ("objective.options.secondz=1", "did you mean 'seconds'"),
        ("baselines=[dpoo]", "did you mean 'dpo'"),
        ("proposer.kind=evolv", "evolve"),
        ("proposer.api_key=sk-abcdefghijklmnop", "api_key_env"),
        ("no-equals", "key=value"),
    ],
)
def test_a_wrong_setting_is_one_line_before_anything_starts(setting, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = discovery("run", config_in(tmp_path), "--set", setting)
    assert ended.code == 2
    assert said in ended.error
    assert "sk-abc" not in ended.error
    assert ended.stdout == ""
    assert not (tmp_path / "runs").exists()


def test_an_archive_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x" * 5000)
    for archive in (tmp_path, "file/below.db", "file", "postgresql+nothing://me:hunter2@host/db"):
        ended = discovery("run", config_in(tmp_path), "--archive", archive)
        assert ended.code in (1, 2)
        assert "hunter2" not in ended.stdout + ended.stderr
        assert ended.error.startswith("error: ")


def test_where_the_archive_comes_from(tmp_path, monkeypatch):
    named = config_in(tmp_path)
    unnamed = tmp_path / "unnamed.yaml"
    unnamed.write_text(named.read_text().replace("archive: runs/quick.db\n", ""))
    monkeypatch.delenv("DISCOVERY_ARCHIVE", raising=False)
    assert configuration(named, None, []).archive == "runs/quick.db"
    assert configuration(named, "other.db", []).archive == "other.db"
    assert configuration(unnamed, None, []).archive == "runs/discovery.db"
    monkeypatch.setenv("DISCOVERY_ARCHIVE", "mine.db")
    assert configuration(named, None, []).archive == "runs/quick.db"
    assert configuration(unnamed, None, []).archive == "mine.db"
    assert configuration(unnamed, "env:DISCOVERY_ARCHIVE", []).archive == "mine.db"


@pytest.fixture(scope="module")
def unsafe(tmp_path_factory) -> Finished:
    folder = tmp_path_factory.mktemp("unsafe")
    config_in(folder)
    return Finished(
        folder, discovery_process("run", "quick.yaml", "--unsafe-no-sandbox", "--json", cwd=folder, timeout_s=240)
    )


def test_a_campaign_without_the_sandbox_says_so_everywhere(unsafe, monkeypatch):
    assert unsafe.ended.code == 0, unsafe.ended.stderr
    assert "No sandbox" in unsafe.ended.stderr
    monkeypatch.chdir(unsafe.folder)
    archive = ("--archive", "runs/quick.db")
    stages = json.loads(unsafe.ended.stdout)["stages"]
    assert stages[0]["rows"]
    again = discovery("leaderboard", "quick", *archive, "--json")
    assert json.loads(again.stdout)["stages"] == stages, again.stderr
    assert "NO SANDBOX" in discovery("leaderboard", "quick", *archive).stdout
    ran = [e for e in json.loads(discovery("candidates", *archive, "--json").stdout) if e["status"] == "ranked"]
    assert len(ran) == 4
    assert all(e["unconfined"] for e in ran)
    assert discovery("candidates", *archive).stdout.count("NO SANDBOX") == 4
    assert "NO SANDBOX" in discovery("campaigns", *archive).stdout
    assert "NO SANDBOX" in discovery("show", ran[0]["id"][:12], *archive).stdout
    shown = json.loads(discovery("show", ran[0]["id"][:12], *archive, "--json").stdout)
    assert {t["details"]["sandbox"] for t in shown["trials"]} == {"none"}


def test_the_leaderboard_as_json(unsafe):
    board = json.loads(unsafe.ended.stdout)
    assert (board["campaign"], board["status"]) == ("quick", "finished")
    search, promotion = board["stages"]
    assert [row["rank"] for row in search["rows"]] == [1, 2, 3, 4]
    assert promotion["fresh"]
    assert {"mean", "difference", "id", "unconfined"} <= set(search["rows"][0])


def test_a_confined_campaign_says_what_holds_it(finished):
    assert "the sandbox holds (seccomp" in finished.ended.stdout
    assert "NO SANDBOX" not in finished.ended.stdout


def test_without_the_system_call_filter_no_campaign_runs(tmp_path):
    config_in(tmp_path)
    code = f"import os, sys; os.chdir({str(tmp_path)!r}); from discovery.cli import main; sys.exit(main())"
    done = run_restricted(["-c", code, "run", "quick.yaml"], denied(SECCOMP), timeout_s=240)
    assert done.returncode == 1, done.stdout
    (line,) = done.stderr.splitlines()
    assert "this machine cannot confine candidates (seccomp: Operation not permitted), so none is run" in line
    assert " trial " not in done.stdout
