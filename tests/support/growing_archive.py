"""A campaign that grows while somebody looks at it: losses with curves, arrays and parents, written one by one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from db.archive import Archive
from db.messages import Prompt, PromptPart, Reply
from db.records import Proposal
from evaluators.base import Metric, Timings, TrialReport
from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.gate import check_source
from sandbox.reports import Match, Nearest, ProbeReport, Properties
from tests.support.small_archive import HOSTILE, SOURCE, TASK

MARKUP = '<img src=x onerror=alert(1)><script>alert(2)</script><a href="https://evil.example/">x</a>'


class Growing:
    """Writes into one archive; `close` ends the campaign. Losses are `source(n)` for n from 0."""

    def __init__(self, path: Path) -> None:
        self.archive = Archive(path, create=True)
        started = self.archive.start_campaign(
            "growing", {}, task=TASK, metric="frontier", higher_is_better=True, seeds=(0, 1)
        )
        self.campaign, self._proposals = started.id, 0
        objective = known_objective(PAIRS.name, "dpo")
        known = replace(
            self._proposal(objective.candidate, "dpo", objective.summary), origin="known", proposer="library"
        )
        self.archive.record_known(self.campaign, replace(known, prompt=None, reply=None))
        self.measure(objective.candidate, 0.7)

    @staticmethod
    def source(number: int) -> Candidate:
        return Candidate(PAIRS.name, SOURCE.replace("20.0", f"{20 + number}.0"))

    def propose(
        self, number: int, name: str, thought: str = MARKUP + HOSTILE, parents: tuple[str, ...] = ()
    ) -> Candidate:
        candidate = self.source(number)
        made = replace(self._proposal(candidate, name, thought), parents=parents)
        unread = replace(made, name="", thought="", candidate=None, gate=None, probe=None)
        self.archive.record_verdict(self.archive.record_reply(self.campaign, unread), made)
        return candidate

    def measure(self, candidate: Candidate, score: float) -> None:
        for seed in (0, 1):
            self.finish(self.start(candidate, seed), seed, score + 0.01 * seed)

    def start(self, candidate: Candidate, seed: int) -> tuple[int, int]:
        """A trial that runs: its id and attempt."""
        trial = self.archive.ensure_trial(self.campaign, candidate.id, TASK.id, seed)
        return trial.id, self.archive.start_attempt(trial.id, "slot 0")

    def finish(self, running: tuple[int, int], seed: int, score: float) -> None:
        metrics = (Metric("frontier", score, True, "ratio"), Metric("final_kl", 4 * score**2, False, "nats"))
        steps = np.arange(50)
        arrays = {"loss": np.exp(-steps / 20)[None, :] + 0.01 * seed, "names": np.array(["a", "b"])}
        report = TrialReport(seed, metrics, arrays, Timings(0.1, 1.5, 0.2, 0.3), "cpu", 1, {}, 512.0, 50)
        self.archive.finish_trial(*running, report)

    def close(self) -> None:
        self.archive.finish_campaign(self.campaign, "finished")
        self.archive.close()

    def _proposal(self, candidate: Candidate, name: str, thought: str) -> Proposal:
        number, self._proposals = self._proposals, self._proposals + 1
        curve = tuple(math.exp(-0.05 * (number + 1) * (0.4 * i - 8)) for i in range(41))
        properties = Properties(False, True, True, True, False, ("policy_chosen_logps",))
        nearest = Nearest((Match("dpo", 1.0, 0.4),), (Match("exponential", 2.0, 0.1),))
        return Proposal(
            number, "proposed", "openai", name, thought,
            prompt=Prompt((PromptPart("system", MARKUP), PromptPart("user", "Invent."))),
            reply=Reply(MARKUP, "a-model", 1.25, 1000, 200),
            candidate=candidate,
            gate=check_source(candidate, PAIRS),
            probe=ProbeReport(properties=properties, curve=curve, nearest=nearest),
        )  # fmt: skip
