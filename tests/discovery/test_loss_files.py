"""Losses from files: every form that is taken, and what is said about the rest."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from db.archive import Archive
from discovery.exporters.python import PythonExporter
from discovery.exporters.testing import CONTEXT, dossier
from discovery.exporters.torch_module import TorchExporter
from discovery.exporters.trl import TrlExporter
from discovery.imports import Given, marked_part, read_losses
from evaluators.objectives import known_objectives
from evaluators.options import OptionsError
from evaluators.preference.contract import PAIRS
from sandbox.check import check_candidate
from sandbox.contract import Conditions
from sandbox.fingerprint import distance
from sandbox.gate import check_source
from sandbox.server import OracleServer
from tests.support.command import discovery
from tests.support.small_archive import WINNER, make_archive

KNOWN = known_objectives(PAIRS.name)
METHOD = """
def {name}(
    self,
    policy_chosen_logps: torch.FloatTensor,
    policy_rejected_logps: torch.FloatTensor,
    reference_chosen_logps: torch.FloatTensor,
    reference_rejected_logps: torch.FloatTensor,
) -> torch.FloatTensor:
    pi_logratios = policy_chosen_logps - policy_rejected_logps
    ref_logratios = reference_chosen_logps - reference_rejected_logps
    logits = pi_logratios - ref_logratios
    {body}
    return losses
    """
# the seeds of DiscoPOP's own archive, in its spelling
DISCOPOP = {
    "dpo": "losses = -F.logsigmoid(self.beta * logits)",
    "hinge": "losses = torch.relu(1 - self.beta * logits)",
    "ipo": "losses = (logits - 1 / (2 * self.beta)) ** 2",
}
CELL = "losses = 0.2 * torch.exp(-self.beta * logits) - 0.7 * F.logsigmoid(self.beta * logits)"
NAMES = "policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta"
NEW = f"""\"\"\"My idea.

More about it.
\"\"\"

import torch


def loss({NAMES}):
    return torch.exp(-beta * policy_chosen_logps / 9)
"""


def method(name: str, body: str) -> dict[str, str]:
    return {"name": name, "code": METHOD.format(name=f"{name}_loss", body=body)}


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def read_one(path: Path) -> Given:
    (found,) = read_losses(path, PAIRS)
    return found


@pytest.fixture(scope="module")
def server():
    with OracleServer() as running:
        yield running


@pytest.mark.parametrize("name", DISCOPOP)
def test_discopop_s_own_losses_become_ours(name, server, tmp_path):
    given = read_one(write(tmp_path / "tests.json", [method(name, DISCOPOP[name])]))
    assert given.name == name
    conditions = Conditions()
    _, theirs = check_candidate(server, given.candidate, PAIRS, conditions=conditions)
    _, ours = check_candidate(server, KNOWN[name].candidate, PAIRS, conditions=conditions)
    assert distance(theirs.fingerprint, ours.fingerprint) < 1e-6


def test_discopop_s_two_halves_are_refused_by_the_probe(server, tmp_path):
    """Its kto_pair returns 2B values; the probe says so."""
    body = "losses = torch.cat((1 - F.sigmoid(self.beta * logits), logits), 0)"
    given = read_one(write(tmp_path / "tests.json", [method("kto", body)]))
    gate, probe = check_candidate(server, given.candidate, PAIRS)
    assert gate.accepted
    assert "shape (64,), must be (32,)" in str(probe.failure)


def test_a_method_may_use_its_own_imports_constants_and_helpers(tmp_path):
    code = f"""import torch
SCALE = 0.5
def bend(x):
    return x * SCALE
def mine(self, {NAMES.removesuffix(", beta")}):
    return bend(-self.beta * policy_chosen_logps)"""
    given = read_one(write(tmp_path / "tests.json", [{"name": "mine", "code": code, "thought": "why"}]))
    assert check_source(given.candidate, PAIRS).accepted
    assert given.candidate.source.count("import torch") == 1
    assert given.thought == "why"


def test_other_attributes_of_self_are_named(tmp_path):
    given = read_one(write(tmp_path / "tests.json", [method("smooth", "losses = self.label_smoothing * logits")]))
    assert given.candidate is None
    scalars = "self.beta, self.moving_margin, self.progress, self.running_log_ratio"
    assert given.problem == f"it uses self.label_smoothing; a loss is given {scalars}"


def test_a_file_of_ours_is_taken_as_it_is(tmp_path):
    given = read_one(write(tmp_path / "mine.py", NEW))
    assert given.name == "mine"
    assert given.thought == "My idea."
    assert given.candidate.source == NEW


@pytest.mark.parametrize("exporter", [PythonExporter(), TorchExporter(), TrlExporter()], ids=lambda e: e.name)
@pytest.mark.parametrize("name", ["lrml", "kto_pair"])
def test_what_we_export_comes_back_as_the_same_loss(exporter, name, server, tmp_path):
    text = exporter.export(dossier(name=name, source=KNOWN[name].candidate.source), CONTEXT).text
    given = read_one(write(tmp_path / "exported.py", text))
    conditions = Conditions()
    _, back = check_candidate(server, given.candidate, PAIRS, conditions=conditions)
    _, before = check_candidate(server, KNOWN[name].candidate, PAIRS, conditions=conditions)
    assert back is not None
    assert distance(back.fingerprint, before.fingerprint) == 0


def test_our_json_keeps_the_identity(tmp_path):
    archive = make_archive(tmp_path / "small.db")
    path = tmp_path / "winner.json"
    assert discovery("export", WINNER.short_id, "--format", "json", "-o", path, "--archive", archive).code == 0
    given = read_one(path)
    assert (given.candidate.id, given.name) == (WINNER.id, "winner")


def test_marks_inside_a_loss_do_not_cut_it():
    text = TrlExporter().export(dossier(source=KNOWN["dpo"].candidate.source + "# ---- to here\n"), CONTEXT).text
    assert "logsigmoid" in marked_part(text)
    assert "LossTrainer" not in marked_part(text)


def test_a_folder_gives_its_files_in_order_and_says_which_are_none(tmp_path):
    write(tmp_path / "b.py", NEW)
    write(tmp_path / "a.json", [method("one", CELL), {"name": 3}, 7])
    (tmp_path / "c.py").write_bytes(b"\xff\xfe")
    write(tmp_path / "d.json", "{")
    write(tmp_path / "notes.txt", "no loss")
    write(tmp_path / "__init__.py", "")
    found = read_losses(tmp_path, PAIRS)
    assert [Path(g.where.split("[")[0]).name for g in found] == ["a.json", "a.json", "a.json", "b.py", "c.py", "d.json"]
    assert [bool(g.candidate) for g in found] == [True, False, False, True, False, False]
    assert "UTF-8" in found[4].problem
    assert "not JSON" in found[5].problem


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("3", "neither a list"),
        ('{"schema": "other"}', "neither a list"),
        ('{"schema": "objective-discovery.loss/1"}', "lacks the loss's contract or source"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_json_of_another_kind_is_bad_input(content, said, tmp_path):
    with pytest.raises(OptionsError, match=said):
        read_losses(write(tmp_path / "x.json", content), PAIRS)


@pytest.mark.parametrize(
    "code", ["(" * 5000, "-" * 5000 + "1", "def f(self:", "x = '\x00'", "def f(self): return self"]
)
def test_hostile_code_is_left_for_the_gate(code, tmp_path):
    given = read_one(write(tmp_path / "x.json", [{"name": "x", "code": code}]))
    assert given.candidate is not None
    assert not check_source(given.candidate, PAIRS).accepted


# the command


def imported(*arguments: object, archive: Path) -> tuple[int, dict]:
    ended = discovery("import", *arguments, "--archive", archive, "--json")
    return ended.code, json.loads(ended.stdout)


def test_a_mixed_folder_gives_a_verdict_each(tmp_path):
    folder, archive = tmp_path / "losses", tmp_path / "a.db"
    folder.mkdir()
    write(
        folder / "a.json",
        [method("cell", CELL), method("dpo", DISCOPOP["dpo"]), method("bad", "losses = os.x(logits)")],
    )
    write(folder / "b.py", NEW)
    write(folder / "twin.py", NEW.replace("/ 9", "/ 9.0"))
    code, values = imported(folder, archive=archive)
    assert code == 0
    assert [(Path(x["file"]).name, x["verdict"]) for x in values["losses"]] == [
        ("a.json[0]", "imported"), ("a.json[1]", "known"), ("a.json[2]", "refused"), ("b.py", "imported"),
        ("twin.py", "duplicate"),
    ]  # fmt: skip
    assert values["imported"] == 2
    assert values["losses"][1]["reason"] == "it is dpo; use that by its name"
    violation = next(v for v in values["losses"][2]["violations"] if "`os`" in v["problem"])
    assert violation["source"].strip() == "losses = os.x(logits)"
    again, values = imported(folder, archive=archive)
    assert again == 0
    assert [x["verdict"] for x in values["losses"]] == [
        "there already",
        "known",
        "refused",
        "there already",
        "duplicate",
    ]


def test_what_is_imported_is_listed_shown_exported_and_measured(tmp_path):
    archive = tmp_path / "a.db"
    path = write(tmp_path / "mine.py", NEW)
    ended = discovery("import", path, "--archive", archive)
    assert ended.code == 0, ended.stderr
    assert "start_from: [" in ended.stdout
    (entry,) = json.loads(discovery("candidates", "--campaign", "imported", "--archive", archive, "--json").stdout)
    assert (entry["name"], entry["thought"], entry["origin"], entry["proposer"]) == (
        "mine",
        "My idea.",
        "imported",
        "file",
    )
    assert json.loads(discovery("candidates", "--origin", "imported", "--archive", archive, "--json").stdout) == [entry]
    shown = discovery("show", entry["id"][:10], "--archive", archive).stdout
    assert "imported, file" in shown
    assert "bounded below" in shown
    assert discovery("export", entry["id"][:10], "--format", "torch", "--archive", archive).code == 0
    sleeper = ["--evaluator", "benchmarks.sleep_evaluator:SleepEvaluator", "--set", "seconds=0.01"]
    assert discovery("evaluate", entry["id"][:10], *sleeper, "--archive", archive).code == 0
    (campaign,) = json.loads(discovery("campaigns", "--archive", archive, "--json").stdout)
    assert (campaign["name"], campaign["status"], campaign["evaluator"]) == (
        "imported",
        "imported",
        "preference.enumerable",
    )


def test_a_refused_file_shows_each_line_and_is_bad_input(tmp_path):
    path = write(tmp_path / "bad.py", f"def loss({NAMES}):\n    import os\n    while True:\n        pass\n")
    ended = discovery("import", path, "--archive", tmp_path / "a.db")
    assert ended.code == 2
    lines = ended.stdout.splitlines()
    assert any(line.startswith(f"{path}:2: imports os") for line in lines)
    assert any(line.startswith(f"{path}:3: a `while` loop is not allowed") for line in lines)
    assert any(line.strip() == "> while True:" for line in lines)
    assert "Next:" not in ended.stdout


def test_what_a_file_says_cannot_touch_the_terminal(tmp_path):
    hostile = "[bold]x[/bold]\x1b[2J\u202e"
    content = [{"name": hostile, "code": f"# {hostile}\nimport os"}, method("x", CELL) | {"name": hostile}]
    ended = discovery("import", write(tmp_path / "x.json", content), "--archive", tmp_path / "a.db")
    assert ended.code == 0, ended.stderr
    assert not set(ended.stdout) & {"\x1b", "\u202e"}


def test_a_collection_whose_import_was_killed_is_gone_on_with(tmp_path):
    archive = tmp_path / "a.db"
    path = write(tmp_path / "mine.py", NEW)
    assert imported(path, archive=archive)[0] == 0
    with closing(sqlite3.connect(archive, isolation_level=None)) as connection:
        connection.execute("UPDATE campaigns SET status = 'running'")
    code, values = imported(path, write(tmp_path / "other.py", NEW.replace("/ 9", "/ 7")), archive=archive)
    assert code == 0
    assert values["losses"][0]["verdict"] == "there already"


def test_another_collection_and_the_name_of_a_campaign(tmp_path):
    archive = make_archive(tmp_path / "small.db")
    path = write(tmp_path / "mine.py", NEW)
    ended = discovery("import", path, "--as", "small", "--archive", archive)
    assert ended.code == 2
    assert "is a campaign of this archive" in ended.error
    assert discovery("import", path, "--as", "theirs", "--archive", archive).code == 0
    with Archive(archive) as stored:
        assert [(c.name, c.status) for c in stored.campaigns()] == [("small", "finished"), ("theirs", "imported")]
        assert stored.campaign("small").ranking.metric == "frontier"


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("missing.py", "no file or folder"),
        ("empty", "no .py or .json file"),
        ("binary.py", "UTF-8"),
        ("huge.py", "too large"),
    ],
)
def test_paths_that_hold_nothing_are_bad_input(argument, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe")
    (tmp_path / "huge.py").write_text("#" * 2_000_000)
    ended = discovery("import", argument, "--archive", "a.db")
    assert ended.code == 2
    assert said in ended.error
    assert ended.stdout == ""


def test_other_platforms_import_nothing(tmp_path, monkeypatch):
    import sys

    monkeypatch.setattr(sys, "platform", "darwin")
    ended = discovery("import", write(tmp_path / "mine.py", NEW), "--archive", tmp_path / "a.db")
    assert ended.code == 1
    assert "needs Linux" in ended.error
