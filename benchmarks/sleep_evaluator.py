"""An evaluator that sleeps instead of training, to measure what surrounds it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from evaluators.base import Metric, MetricSpec, Provenance, Resources, Task, Timings, TrialReport
from evaluators.options import option, options_dict, parse_options
from evaluators.preference.contract import PAIRS
from sandbox.contract import Contract
from sandbox.oracle import LossOracle


@dataclass(frozen=True)
class SleepOptions:
    """What it pretends to take."""

    seconds: float = option(0.5, "wall seconds of one trial")


class SleepEvaluator:
    """Sleeps for a while and reports a random score. Never calls the oracle."""

    name: ClassVar[str] = "benchmark.sleep"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "Sleeps instead of training."
    contract: ClassVar[Contract] = PAIRS
    metrics: ClassVar[tuple[MetricSpec, ...]] = (MetricSpec("score", True, "1", "uniform random"),)
    primary_metric: ClassVar[str] = "score"
    arrays_doc: ClassVar[Mapping[str, str]] = {}
    Options = SleepOptions

    def __init__(self, options: Mapping[str, Any] | None = None, cache_dir: Path | None = None) -> None:
        self.options = parse_options(SleepOptions, options, self.name)

    @property
    def task(self) -> Task:
        return Task(self.name, self.version, options_dict(self.options), Provenance("none", "none", "0" * 64))

    @property
    def task_description(self) -> str:
        return "Nothing is trained: every loss gets a random score."

    @property
    def resources(self) -> Resources:
        return Resources(cpus=0.1)

    def prepare(self, progress: Callable[[str], None] | None = None) -> Mapping[str, float]:
        if progress is not None:
            progress(f"nothing to prepare for {self.options.seconds:g} s of sleep")
        return {}

    def run(self, oracle: LossOracle, seed: int) -> TrialReport:
        time.sleep(self.options.seconds)
        score = random.Random(f"{seed} {oracle.candidate.id}").random()
        return TrialReport(
            seed=seed,
            metrics=(Metric("score", score, True, "1"),),
            arrays={},
            timings=Timings(0.0, self.options.seconds, 0.0, 0.0),
            device="cpu",
            threads=1,
            versions={},
            peak_memory_mb=0.0,
            oracle_calls=0,
        )
