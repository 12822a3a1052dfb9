"""Listings, `show` and `export` on an archive, and what is said when there is none."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from discovery.exporters.base import CALL, ExportError, Runnable
from discovery.exporting import verify
from discovery.gathering import of_known
from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from sandbox.server import OracleServer
from tests.support.command import discovery
from tests.support.small_archive import CRASHED, REFUSED, SOURCE, WINNER, make_archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive") / "small.db")


LISTINGS = [["campaigns"], ["candidates"], ["candidates", "--campaign", "small"], ["show", WINNER.short_id]]


@pytest.mark.parametrize("arguments", LISTINGS)
def test_json_is_all_there_is_on_stdout_and_is_harmless(arguments, archive):
    ended = discovery(*arguments, "--archive", archive, "--json")
    assert ended.code == 0, ended.stderr
    assert json.loads(ended.stdout)
    assert ended.stdout.isascii()
    assert ended.stderr == ""


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("arguments", [*LISTINGS, ["show", CRASHED.short_id], ["show", REFUSED.short_id]])
def test_hostile_text_neither_styles_nor_breaks_a_listing(arguments, width, archive, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = discovery(*arguments, "--archive", archive).stdout
    assert "\x1b[2J" not in coloured
    assert "\u202e" not in coloured
    monkeypatch.delenv("FORCE_COLOR")
    plain = discovery(*arguments, "--archive", archive).stdout
    assert "\x1b" not in plain
    table = [line for line in plain.splitlines() if not line.lstrip().startswith(("def ", "margin", "Next", "return"))]
    assert max(len(line) for line in table) <= width


def test_campaigns_show_the_best(archive):
    (campaign,) = json.loads(discovery("campaigns", "--archive", archive, "--json").stdout)
    assert campaign["leader"]["name"] == "winner"
    assert campaign["leader"]["score"]["mean"] == 0.875
    assert (campaign["trials_done"], campaign["trials_failed"]) == (8, 1)
    assert "winner" in discovery("campaigns", "--archive", archive).stdout


def test_candidates_are_ranked_and_filtered(archive):
    def ids(*arguments: str) -> list[str]:
        return [e["id"] for e in json.loads(discovery("candidates", *arguments, "--archive", archive, "--json").stdout)]

    dpo, ipo = (known_objective(PAIRS.name, name).candidate.id for name in ("dpo", "ipo"))
    assert ids() == [WINNER.id, dpo, ipo, CRASHED.id, REFUSED.id]
    assert ids("--status", "ranked") == [WINNER.id, dpo, ipo]
    assert ids("--origin", "known") == [dpo, ipo]
    assert ids("--search", "more room") == [CRASHED.id]
    assert ids("--limit", "1", "--offset", "1") == [dpo]
    text = discovery("candidates", "--limit", "2", "--archive", archive).stdout
    assert "--offset 2" in text
    everything = discovery("candidates", "--archive", archive).stdout
    for word in ("winner", "baseline", "failed: NON_FINITE", "refused: STATIC", "0.8750"):
        assert word in everything


def test_show_tells_everything(archive):
    text = discovery("show", WINNER.short_id, "--archive", archive).stdout
    for line in SOURCE.splitlines():
        assert line in text
    for fact in (WINNER.id, "a-model", "dpo (", "frontier 0.8750, mean of 2 seeds", "[bold red]x[/bold red]",
                 "preference.enumerable, ranks by frontier", "on seeds that the search never saw",
                 "preference.sentiment, promotion: another task", "see the package", "reward_accuracy 0.875"):  # fmt: skip
        assert fact in text, fact
    values = json.loads(discovery("show", WINNER.short_id, "--archive", archive, "--json").stdout)
    assert values["source"] == SOURCE
    assert values["score"]["by_seed"] == {"0": 0.875, "1": 0.875}
    assert sorted(t["seed"] for t in values["trials"]) == [0, 1, 1000, 1000]
    assert values["proposal"]["messages"][0] == {"role": "system", "content": "You invent losses."}
    assert values["proposal"]["reply"]["text"] == "the raw reply"
    assert [a["name"] for a in values["lineage"]] == ["winner", "dpo"]
    assert len(values["tasks"]) == 2


def test_show_tells_why_something_failed(archive):
    assert "NON_FINITE: call 7" in " ".join(discovery("show", CRASHED.short_id, "--archive", archive).stdout.split())
    refused = discovery("show", REFUSED.short_id, "--archive", archive).stdout
    assert "line 1" in refused
    assert "imports os" in refused


def test_candidates_point_at_the_best_that_is_no_baseline(archive):
    ended = discovery("candidates", "--archive", archive)
    assert f"discovery show {WINNER.short_id} " in ended.stdout
    known = discovery("candidates", "--origin", "known", "--archive", archive).stdout
    assert "discovery show " in known
    assert WINNER.short_id not in known


def test_the_archive_can_be_named_by_the_environment(archive, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISCOVERY_ARCHIVE", str(archive))
    ended = discovery("candidates")
    assert ended.code == 0
    assert f"discovery show {WINNER.short_id}\n" in ended.stdout
    monkeypatch.delenv("DISCOVERY_ARCHIVE")
    monkeypatch.setenv("MINE", str(archive))
    assert discovery("campaigns", "--archive", "env:MINE").code == 0
    assert "NOT_SET" in discovery("campaigns", "--archive", "env:NOT_SET").error


def test_without_an_archive_or_with_something_else_one_line_says_so(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.db").write_text("not a database at all, but long enough to be looked at" * 20)
    with sqlite3.connect(tmp_path / "foreign.db") as connection:
        connection.execute("CREATE TABLE songs (id INTEGER)")
    (tmp_path / "folder").mkdir()
    wrong = ["missing.db", "text.db", "foreign.db", "folder", "text.db/below.db", "mysql://me:hunter2@host/db", ""]
    for url in wrong:
        for command in (["campaigns"], ["candidates", "--json"], ["show", "abcd"], ["export", "abcd"]):
            ended = discovery(*command, "--archive", url)
            assert ended.code in (1, 2), (url, command)
            assert ended.error.startswith("error: ")
            assert ended.stdout == ""
            assert "hunter2" not in ended.stderr
    assert "runs/discovery.db" in discovery("campaigns").error
    assert not (tmp_path / "runs").exists()


def test_wrong_names_in_an_archive_are_bad_input(archive):
    for arguments, said in (
        (["candidates", "--campaign", "smal"], "small"),
        (["candidates", "--status", "rankd"], "ranked"),
        (["candidates", "--origin", "unknown"], "known"),
        (["show", "ffffffffff"], "ffffffffff"),
        (["show", "winer"], "winner"),
        (["show", WINNER.short_id, "--campaign", "smal"], "small"),
        (["export", WINNER.short_id, "--format", "pyton"], "python"),
        (["export", "ffffffffff"], "ffffffffff"),
        (["export", WINNER.short_id, "--campaign", "smal"], "small"),
        (["export", "lrlm"], "lrml"),
        (["evaluate", "ffffffffff"], "ffffffffff"),
    ):
        ended = discovery(*arguments, "--archive", archive)
        assert ended.code == 2, arguments
        assert said in ended.error


def test_export_writes_a_module_that_computes_the_loss(archive, tmp_path):
    import torch

    path = tmp_path / "best.py"
    ended = discovery("export", WINNER.short_id[:6], "-o", path, "--archive", archive)
    assert ended.code == 0, ended.stderr
    assert "computes what was archived" in ended.stderr
    spec = importlib.util.spec_from_file_location("best", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    inputs = torch.tensor([[-1.0], [-2.0], [-1.5], [-1.75]]).unbind(0)
    assert module.loss(*inputs, beta=0.5).item() == pytest.approx(torch.tensor(-0.5 * 0.75).exp().item())
    for fact in (WINNER.id, "a-model", "dpo", f"discovery export {WINNER.short_id} -o {path} --archive {archive}"):
        assert fact in module.__doc__
    assert "frontier (higher is better) on preference.sentiment, another task:\n    mean: 2.5, 1 seed" in module.__doc__
    assert "minus dpo (0.78125)" in module.__doc__
    again = discovery("export", WINNER.short_id, "-o", path, "--archive", archive)
    assert again.code == 2
    assert "--force" in again.error


def test_export_without_a_file_goes_to_stdout(archive):
    ended = discovery("export", WINNER.short_id, "--archive", archive)
    assert ended.code == 0
    compile(ended.stdout, "exported", "exec")
    assert ended.stderr == ""


def test_what_was_refused_is_not_exported(archive, tmp_path):
    for candidate, said in ((REFUSED, "was refused (STATIC"), (CRASHED, "failed in training (NON_FINITE")):
        ended = discovery("export", candidate.short_id, "-o", tmp_path / "a.py", "--archive", archive)
        assert ended.code == 2
        assert said in ended.error
        assert "--format json" in ended.error
        assert list(tmp_path.iterdir()) == []


def test_a_known_objective_needs_no_archive_and_takes_its_scores_from_one(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone = discovery("export", "dpo")
    assert alone.code == 0, alone.stderr
    assert "Not measured." in alone.stdout
    assert "command:   discovery export dpo\n" in alone.stdout
    measured = discovery("export", "dpo", "--archive", archive)
    assert "campaign:  small" in measured.stdout
    assert "by which the search ranked:\n    mean: 0.78125" in measured.stdout
    assert "Not measured." in discovery("export", "hinge", "--archive", archive).stdout


def verified(source: str) -> None:
    """A module compared with the archived winner."""
    objective = replace(known_objective(PAIRS.name, "dpo"), name="winner", candidate=WINNER)
    adapter = f"def {CALL}(**inputs):\n    return loss(**inputs)\n"
    with OracleServer() as server:
        verify(server, of_known(objective, PAIRS), [Runnable("the module", source, adapter)])


def test_a_module_that_computes_something_else_is_not_exported():
    verified('"""Provenance."""\n\n' + SOURCE)
    for changed in (SOURCE.replace("-beta", "-1.01 * beta"), SOURCE.replace("-beta", "-(beta + 1e-15)")):
        with pytest.raises(ExportError, match="something else"):
            verified(changed)
    with pytest.raises(ExportError, match=r"does not run.*ImportError"):
        verified("import os\n" + SOURCE)


def test_long_provenance_is_no_reason_to_refuse():
    verified('"""' + "Provenance.\n" * 3000 + '"""\n' + "# a comment\n" * 700 + SOURCE)


def test_other_platforms_list_show_and_export(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    for arguments in LISTINGS:
        assert discovery(*arguments, "--archive", archive).code == 0
    ended = discovery("export", WINNER.short_id, "-o", tmp_path / "best.py", "--archive", archive)
    assert ended.code == 0, ended.stderr
    assert "not run" in ended.stderr


def test_evaluate_takes_an_id(archive):
    sleeper = ["--evaluator", "benchmarks.sleep_evaluator:SleepEvaluator", "--set", "seconds=0.01"]
    ended = discovery("evaluate", WINNER.short_id, *sleeper, "--archive", archive, "--json")
    assert ended.code == 0, ended.stderr
    assert json.loads(ended.stdout)["name"] == "winner"
