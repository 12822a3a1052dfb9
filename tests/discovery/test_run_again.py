"""Running a campaign again: nothing is started where nothing is left to do, and no change of the settings is silent."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from db.archive import Archive
from db.endings import Reason
from db.records import Proposal
from discovery.campaign import Campaign, CampaignResult
from discovery.changes import FREE, REFUSED, SAID, said_changes
from discovery.config import CampaignConfig, make_config
from discovery.config_errors import model_of
from discovery.executor import RayExecutor
from discovery.measured import measured
from discovery.protocols import Finite
from evaluators.base import Metric, Timings, TrialReport
from evaluators.objectives import known_objective
from evaluators.options import OptionsError
from evaluators.plugins import load_plugin
from evaluators.preference.contract import PAIRS
from sandbox.contract import Conditions
from sandbox.failure import InfrastructureError
from sandbox.gate import check_source
from sandbox.reports import Fingerprint, ProbeReport
from tests.support.campaigns import EVALUATOR, config, kept
from tests.support.small_archive import make_archive

STARTED = "Ray was asked for"


def changes_of(folder: Path, **changes: Any) -> dict[str, Any]:
    promotion = {
        "evaluator": EVALUATOR, "top": 1, "baselines": ["dpo"], "seeds": [1000],
        "options": {"folder": str(folder), "variant": 1},
    }  # fmt: skip
    return {"proposer": {"kind": "none"}, "promotions": [promotion], **changes}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CampaignResult]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, Campaign(config(folder, **changes_of(folder))).run()


@pytest.fixture
def again(finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished campaign's archive, where starting Ray is an error."""

    async def start(self: RayExecutor, conditions: Conditions) -> None:
        raise InfrastructureError(STARTED)

    monkeypatch.setattr(RayExecutor, "start", start)
    shutil.copy(finished[0] / "archive.db", tmp_path / "archive.db")
    return tmp_path


def finished_at(path: Path) -> datetime | None:
    with Archive(path) as archive:
        return archive.campaign("small").finished_at


def run_again(folder: Path, made_in: Path, **changes: Any) -> CampaignResult:
    wanted = config(made_in, **changes_of(made_in, **changes))
    return Campaign(wanted.model_copy(update={"archive": str(folder / "archive.db"), "log_dir": str(folder)})).run()


def test_a_finished_campaign_shows_its_board_without_starting_anything(finished, again: Path) -> None:
    before = time.process_time()
    result = run_again(again, finished[0])
    assert time.process_time() - before < 2
    assert result.ending == finished[1].ending
    assert result.ending.reason is Reason.EXHAUSTED
    assert result.board == finished[1].board
    assert [len(stage.rows) for stage in result.board.stages] == [2, 1]
    found = kept(again / "archive.db")
    assert (found.status, found.ended) == ("finished", result.ending)
    assert finished_at(again / "archive.db") == finished_at(finished[0] / "archive.db") is not None


ROLES: dict[str, Literal["known", "proposed"]] = {"dpo": "known", "ipo": "proposed"}
RUN = """
import sys
from discovery.cli import main

code = main(sys.argv[1:])
found = {"torch", "ray", "openai"} & sys.modules.keys()
assert not found, found
sys.exit(code)
"""


def test_showing_the_board_again_imports_nothing_that_trains(tmp_path: Path) -> None:
    settings = {"name": "small", "archive": str(tmp_path / "a.db"), "log_dir": str(tmp_path), "baselines": ["dpo"]}
    settings |= {"objective": {"evaluator": "preference.enumerable"}, "budget": {"candidates": 1}}
    wanted = make_config(settings)
    (stage,) = (m.stage for m in measured(wanted))
    with Archive(wanted.archive, create=True) as archive:
        started = archive.start_campaign(
            "small", wanted.public(), task=stage.task, metric=stage.metric, higher_is_better=True, seeds=stage.seeds
        )
        fingerprint = Fingerprint(((0.25, -0.5), (0.5, 0.125)))
        for number, (name, origin) in enumerate(ROLES.items()):
            objective = known_objective(PAIRS.name, name)
            known = Proposal(
                number, origin, "library", name, "", candidate=objective.candidate,
                gate=check_source(objective.candidate, PAIRS), probe=ProbeReport(fingerprint=fingerprint),
            )  # fmt: skip
            archive.record_known(started.id, known)
            for seed in stage.seeds:
                trial = archive.ensure_trial(started.id, objective.candidate.id, stage.task.id, seed)
                metrics = (Metric(stage.metric, 0.5 + 0.1 * number + 0.01 * seed, True, ""),)
                report = TrialReport(seed, metrics, {}, Timings(0.1, 1.5, 0.2, 0.3), "cpu", 1, {}, 512.0, 50)
                archive.finish_trial(trial.id, archive.start_attempt(trial.id, "slot 0"), report)
        archive.finish_campaign(started.id)
    (tmp_path / "c.json").write_text(json.dumps(settings))
    ended = subprocess.run(
        [sys.executable, "-c", RUN, "run", str(tmp_path / "c.json")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "nothing is started" in ended.stdout
    assert "+0.1000 [" in ended.stdout


@pytest.mark.parametrize(
    "changes",
    [
        {"baselines": ["dpo", "hinge", "ipo"]},
        {"proposer": {"kind": "evolve"}, "budget": {"candidates": 1}},
        {"start_from": ["soft.py"]},
        {"promotions": [{"evaluator": EVALUATOR, "baselines": ["hinge"], "seeds": [2000], "options": {"variant": 2}}]},
    ],
    ids=["a baseline more", "somebody proposes", "a loss to start from", "another promotion"],
)
def test_what_is_new_is_done(changes: dict[str, Any], finished, again: Path, monkeypatch) -> None:
    monkeypatch.chdir(again)
    (again / "soft.py").write_text(
        "import torch.nn.functional as F\n\n\ndef loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, "
        "reference_rejected_logps, beta):\n    d = policy_chosen_logps - policy_rejected_logps\n"
        "    d = d - reference_chosen_logps + reference_rejected_logps\n"
        "    return F.softplus(-beta * d) ** 3 + (beta * d - 2.0) ** 2\n"
    )
    if "promotions" in changes:
        changes["promotions"][0]["options"]["folder"] = str(finished[0])
    with pytest.raises(InfrastructureError, match=STARTED):
        run_again(again, finished[0], **changes)
    ended = kept(again / "archive.db").ended
    assert ended is not None
    assert (ended.reason, ended.detail) == (Reason.FAULT, STARTED)


def test_another_seed_is_refused_in_one_line_and_changes_nothing(finished, again: Path) -> None:
    before = (again / "archive.db").read_bytes()
    with pytest.raises(OptionsError, match="started with seed 0, not 1") as caught:
        run_again(again, finished[0], seed=1)
    assert "\n" not in str(caught.value)
    assert "another name" in str(caught.value)
    assert (again / "archive.db").read_bytes() == before


def test_scores_of_another_definition_are_never_compared_and_it_is_said_why(tmp_path: Path) -> None:
    """The archive is one of version 1 of the task, whose scores were on another scale."""
    path = make_archive(tmp_path / "old.db")
    before = path.read_bytes()
    wanted = make_config(
        {"name": "small", "archive": str(path), "seed": 1, "log_dir": str(tmp_path), "budget": {"candidates": 1},
         "objective": {"evaluator": "preference.enumerable"}}
    )  # fmt: skip
    with pytest.raises(OptionsError, match=r"version 1 of preference\.enumerable, another definition than") as caught:
        Campaign(wanted).run()
    assert "would not compare; give this one another name" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_other_changes_are_said_with_both_values(finished, again: Path) -> None:
    result = run_again(again, finished[0], limits={"call_s": 1.0}, budget={"candidates": 3, "tokens": 9})
    (limits,) = (line for line in result.changes if "limits" in line)
    (budget,) = (line for line in result.changes if "budget" in line)
    assert "limits.call_s 5.0 -> 1.0 (what was refused or failed under the old limits stays so)" in limits
    assert "budget.tokens null -> 9" in budget
    same = run_again(again, finished[0], limits={"call_s": 1.0}, budget={"candidates": 3, "tokens": 9})
    assert same.changes == ()


def leaves(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = model_of(field.annotation)
        if inner is None or "tuple" in str(field.annotation):
            yield f"{path}{name}"
        else:
            yield from leaves(inner, f"{path}{name}.")


@pytest.mark.parametrize("key", sorted(leaves(CampaignConfig)))
def test_each_setting_is_refused_said_or_free(key: str) -> None:
    """A new setting has to be put into one of the three."""
    of = [s for s in (*REFUSED, *SAID, *FREE) if key == s or key.startswith(f"{s}.")]
    assert len(of) == 1, (key, of)


def test_changes_compare_leaves_and_lists(tmp_path: Path) -> None:
    with Archive(tmp_path / "a.db", create=True) as archive:
        from db.testing_values import TASK

        start = {"task": TASK, "metric": "score", "higher_is_better": True}
        record = archive.start_campaign("c", {"baselines": ["dpo"], "prompts": {"user": "a"}}, **start)
        changed = replace(record, previous_config={"baselines": ("dpo",), "prompts": {"user": None}})
        assert said_changes(record) == ()
        (line,) = said_changes(changed)
        assert "prompts.user null -> a" in line
        assert "baselines" not in line


def test_none_is_a_registered_proposer_that_knows_its_end() -> None:
    proposer = load_plugin("proposers", "none")({}, PAIRS, 0)
    assert isinstance(proposer, Finite)
    assert proposer.has_ended(0) is not None
