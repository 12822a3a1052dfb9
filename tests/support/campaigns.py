"""Whole campaigns for tests: a quick evaluator with planned faults, replies of every sort, and configurations."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from benchmarks.sleep_evaluator import SleepEvaluator
from db.archive import Archive
from db.endings import Ending
from db.records import Proposal, TrialRecord
from discovery.config import CampaignConfig, make_config
from evaluators.base import Task, TrialReport
from evaluators.options import option, parse_options
from sandbox.oracle import LossOracle
from tests.support.losses import HEAD, MARGIN

EVALUATOR = "tests.support.campaigns:FaultyEvaluator"
BASELINES = ("dpo", "hinge")


@dataclass(frozen=True)
class FaultyOptions:
    """What a trial takes, and where it keeps notes."""

    seconds: float = option(0.0, "wall seconds of one trial")
    folder: str = option("", "where it notes trials, process ids and faults that have happened")
    variant: int = option(0, "tells tasks apart")
    kills: int = option(0, "how often preparing it kills the worker")


class FaultyEvaluator(SleepEvaluator):
    """Calls the loss once on ordinary log-probs, then acts on what the candidate's source says.

    ``FAULT kill``: the worker is killed, once. ``FAULT raise``: an exception that no evaluator should raise, always.
    ``FAULT silent``: a report without the metric. ``FAULT wide``: the loss meets huge log-ratios.
    """

    name: ClassVar[str] = "test.faulty"
    Options = FaultyOptions  # type: ignore[assignment]

    def __init__(self, options: Mapping[str, Any] | None = None, cache_dir: Path | None = None) -> None:
        self.settings = parse_options(FaultyOptions, options, self.name)
        super().__init__({"seconds": self.settings.seconds})

    @property
    def task(self) -> Task:
        return replace(super().task, evaluator=self.name, options={"variant": self.settings.variant})

    def prepare(self, progress: Callable[[str], None] | None = None) -> Mapping[str, float]:
        folder = Path(self.settings.folder)
        killed = len(list(folder.glob("preparing-*"))) if self.settings.kills else 0
        if killed < self.settings.kills:
            (folder / f"preparing-{killed}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().prepare(progress)

    def run(self, oracle: LossOracle, seed: int) -> TrialReport:
        source, folder = oracle.candidate.source, Path(self.settings.folder)
        with (folder / "trials.txt").open("a") as notes:
            notes.write(f"{self.settings.variant} {oracle.candidate.id} {seed} {os.getpid()}\n")
        killed = folder / f"killed-{oracle.candidate.id}"
        if "FAULT kill" in source and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if "FAULT raise" in source:
            raise LookupError("a bug of the evaluator")
        scale = 1e25 if "FAULT wide" in source else 1.0
        logps = scale * torch.linspace(-1.0, 0.5, 8)
        inputs = {t.name: logps.roll(i).unsqueeze(0) for i, t in enumerate(self.contract.tensors)}  # (1, 8) each
        oracle(inputs, {"beta": [0.1], "progress": [0.5]})
        report = super().run(oracle, seed)
        return replace(report, metrics=()) if "FAULT silent" in source else report


def reply(name: str, lines: str, note: str = "") -> str:
    """A reply whose loss has these lines as its body; `d` is the margin."""
    indented = "".join(f"    {line}\n" for line in lines.splitlines())
    return json.dumps({"thought": note, "name": name, "code": f"{HEAD}{MARGIN}{indented}    # {note}\n"})


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """A small campaign in `folder`: two baselines, two seeds, no promotion."""
    options = {"folder": str(folder)}
    return {
        "name": "small",
        "archive": str(folder / "archive.db"),
        "log_dir": str(folder),
        "objective": {"evaluator": EVALUATOR, "seeds": 2, "options": options},
        "baselines": list(BASELINES),
        "budget": {"candidates": 3},
        "proposals": {"in_flight": 2, "max_repairs": 1},
        **changes,
    }


def config(folder: Path, **changes: Any) -> CampaignConfig:
    return make_config(settings(folder, **changes))


def endpoint(base_url: str, **options: Any) -> dict[str, Any]:
    """The proposer section for a chat server."""
    return {
        "kind": "openai",
        "model": "stand-in",
        "base_url": base_url,
        "api_key_env": None,
        "backoff_s": 0.0,
        **options,
    }


def wait_until(true: Any, timeout_s: float, what: str) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Kept:
    """What an archive holds of a campaign."""

    status: str
    proposals: list[Proposal]
    trials: dict[tuple[str, str, int], TrialRecord]  # (candidate id, task id, seed)
    attempts: int
    lost_requests: int = 0
    lost_tokens: int = 0
    ended: Ending | None = None

    @property
    def asked(self) -> list[Proposal]:
        return [p for p in self.proposals if p.origin != "known"]

    @property
    def accepted(self) -> list[Proposal]:
        return [p for p in self.asked if p.judged and p.failure is None]

    def named(self, name: str) -> Proposal:
        (found,) = [p for p in self.proposals if p.name == name]
        return found

    def of(self, proposal: Proposal) -> list[TrialRecord]:
        assert proposal.candidate is not None
        return [t for key, t in self.trials.items() if key[0] == proposal.candidate.id]


def kept(archive_path: Path | str, name: str = "small") -> Kept:
    """Read a campaign back, with each proposal's prompt."""
    with Archive(archive_path) as archive:
        record = archive.campaign(name)
        proposals = [replace(p, prompt=archive.prompt(p.id)) for p in archive.proposals(name)]
        ids = {p.candidate.id for p in proposals if p.candidate is not None}
        found = [t for i in sorted(ids) for t in archive.trials(i, campaign=name)]
        trials = {(t.candidate_id, t.task_id, t.seed): t for t in found}
        assert len(trials) == len(found), "a trial is stored twice"
        totals = archive.totals(name)
        return Kept(
            record.status, proposals, trials, totals.attempts, totals.lost_requests, totals.lost_tokens, record.ended
        )
