"""Values to fill an archive with in tests: tasks, reports and proposals that have every field set."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from db.messages import Prompt, PromptPart, Reply
from db.records import Proposal
from evaluators.base import Metric, Provenance, Task, Timings, TrialReport
from sandbox.candidate import Candidate
from sandbox.contract import Conditions
from sandbox.reports import Fingerprint, GateReport, Match, Nearest, ProbeReport, Properties

TASK = Task("test.task", 1, {"steps": 200, "betas": [0.1, 0.2]}, Provenance("synthetic", "none", "ab" * 32))
OTHER_TASK = Task("test.other", 1, {}, Provenance("elsewhere", "CC0", "cd" * 32))
PARAMETERS = ("policy_chosen", "beta")


def report(seed: int, score: float, **arrays: Any) -> TrialReport:
    """A report with the metrics `score` (higher is better) and `kl` (lower is)."""
    metrics = (Metric("score", score, True, "", 0.25), Metric("kl", 10 - score, False, "nats", None))
    timings = Timings(0.1, 1.5, 0.2, 0.3)
    return TrialReport(seed, metrics, arrays, timings, "cpu", 1, {"torch": "2.13.0"}, 512.0, 200, {"accuracy": 0.9})


CONDITIONS = Conditions(2**51 + 1, 48, (0.1, 0.5))


def proposal(index: int, body: str | None = None, **changes: Any) -> Proposal:
    """An accepted proposal number `index` whose code is `body`, with all reports."""
    source = f"def loss(policy_chosen, beta):\n    return {body or f'-policy_chosen * {index + 1}'}\n"
    limits = {"limit_at_plus_infinity": "0", "limit_at_minus_infinity": "inf"}
    properties = Properties(False, True, True, True, False, ("policy_chosen",), True, False, None, **limits)
    near = Nearest((Match("dpo", 2.0, 0.25), Match("ipo", 1.0, math.inf)), (Match("hinge", 1.0, 0.5),))
    prints = Fingerprint(((index + 0.1, math.nan, -2.0), (1e-300, 0.5, index / 3)), CONDITIONS, single=True)
    made = Proposal(
        index=index,
        origin="proposed",
        proposer="openai",
        name=f"loss {index}",
        thought="steeper",
        prompt=Prompt((PromptPart("system", "You invent losses."), PromptPart("user", f"Number {index}."))),
        reply=Reply(f"```python\n{source}```", "a-model", 1.25, 1000, 200, 2, 0.25),
        candidate=Candidate("preference.pairs", source),
        gate=GateReport((), PARAMETERS),
        probe=ProbeReport(None, properties, prints, {"wall_ms": 0.5, "largest_gradient": math.inf}, (-0.25, 0.5), near),
    )
    return replace(made, **changes)


def same_fingerprint(a: Fingerprint | None, b: Fingerprint | None) -> bool:
    """Equal to the last bit, NaN being equal to NaN."""
    return a is not None and b is not None and np.array_equal(np.array(a.values), np.array(b.values), equal_nan=True)
