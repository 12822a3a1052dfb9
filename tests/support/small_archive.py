"""An archive on disk with one campaign that has everything a listing shows: baselines, a winner, failures, hostile text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from db.archive import Archive
from db.messages import Prompt, PromptPart, Reply
from db.records import Proposal
from evaluators.base import Metric, Provenance, Task, Timings, TrialReport
from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.failure import Failure, FailureKind
from sandbox.gate import check_source
from sandbox.reports import GateReport

HOSTILE = "[bold red]x[/bold red]\x1b[2J\u202e\nsecond line [link=file:///etc/passwd]y[/link]"
SOURCE = f"""import torch


def loss({", ".join(PAIRS.required)}):
    margin = policy_chosen_logps - reference_chosen_logps - policy_rejected_logps + reference_rejected_logps
    return torch.exp(-beta * margin).clamp(max=20.0)
"""
WINNER = Candidate(PAIRS.name, SOURCE)
CRASHED = Candidate(PAIRS.name, SOURCE.replace("20.0", "30.0"))
REFUSED = Candidate(PAIRS.name, "import os\n")
TASK = Task("preference.enumerable", 1, {"steps": 32}, Provenance("planted", "Apache-2.0", "ab" * 32))
OTHER = Task("preference.sentiment", 1, {}, Provenance("reviews", "see the package", "cd" * 32))


def make_archive(path: Path, settings: Mapping[str, Any] | None = None) -> Path:
    """Fill a new archive, with the campaign's settings if any matter; returns its path."""
    with Archive(path, create=True) as archive:
        campaign = archive.start_campaign(
            "small", {"seed": 1, **(settings or {})}, task=TASK, metric="frontier", higher_is_better=True, seeds=(0, 1)
        ).id
        archive.record_task(OTHER, {"reward_accuracy": 0.875})
        for index, (name, score) in enumerate({"dpo": 0.75, "ipo": 0.5}.items()):
            objective = known_objective(PAIRS.name, name)
            known = Proposal(
                index, "known", "library", name, objective.summary, candidate=objective.candidate,
                gate=check_source(objective.candidate, PAIRS),
            )  # fmt: skip
            archive.record_known(campaign, known)
            _train(archive, campaign, objective.candidate, TASK, {0: score, 1: score + 0.0625})
        parents = (known_objective(PAIRS.name, "dpo").candidate.id,)
        _propose(archive, campaign, _proposal(2, WINNER, parents=parents, name="winner", thought=HOSTILE))
        _train(archive, campaign, WINNER, TASK, {0: 0.875, 1: 0.875, 1000: 0.8125})
        _train(archive, campaign, WINNER, OTHER, {1000: 2.5})
        _propose(archive, campaign, _proposal(3, CRASHED, name=HOSTILE, thought="more room"))
        trial = archive.ensure_trial(campaign, CRASHED.id, TASK.id, 0)
        failure = Failure(FailureKind.NON_FINITE, f"call 7: {HOSTILE}")
        archive.fail_trial(trial.id, archive.start_attempt(trial.id, "slot 0"), failure, True)
        refused = _proposal(4, REFUSED, name="refused_one", thought="")
        gate = check_source(REFUSED, PAIRS)
        static = Failure(FailureKind.STATIC, str(gate.violations[0]))
        _propose(archive, campaign, replace(refused, gate=gate, failure=static))
        archive.finish_campaign(campaign, "finished")
    return path


def _proposal(index: int, candidate: Candidate, **changes: object) -> Proposal:
    prompt = Prompt((PromptPart("system", "You invent losses."), PromptPart("user", f"Number {index}.")))
    reply = Reply("the raw reply", "a-model", 1.25, 1000, 200)
    gate: GateReport = check_source(candidate, PAIRS)
    made = Proposal(index, "proposed", "openai", "", "", prompt=prompt, reply=reply, candidate=candidate, gate=gate)
    return replace(made, **changes)  # type: ignore[arg-type]


def _propose(archive: Archive, campaign: int, made: Proposal) -> None:
    unread = replace(made, name="", thought="", candidate=None, gate=None, failure=None)
    archive.record_verdict(archive.record_reply(campaign, unread), made)


def _train(archive: Archive, campaign: int, candidate: Candidate, task: Task, scores: dict[int, float]) -> None:
    for seed, score in scores.items():
        trial = archive.ensure_trial(campaign, candidate.id, task.id, seed)
        metrics = (Metric("frontier", score, True, "ratio"), Metric("frontier/base", score, True, "ratio"))
        timings = Timings(0.1, 1.5, 0.2, 0.3)
        report = TrialReport(seed, metrics, {}, timings, "cpu", 1, {"torch": "2.13.0"}, 512.0, 200)
        archive.finish_trial(trial.id, archive.start_attempt(trial.id, "slot 0"), report)
