"""`preference.enumerable`: preference optimisation in a world so small that every expectation is a sum."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from evaluators.base import Calls, MetricSpec, Provenance, Resources, Task, Timings, TrialReport, canonical_json
from evaluators.measure import peak_memory_mb, torch_threads, versions
from evaluators.options import OptionsError, options_dict, parse_options
from evaluators.preference.contract import PAIRS
from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.description import describe
from evaluators.preference.enumerable.options import EnumerableOptions
from evaluators.preference.enumerable.scoring import metric_specs, score
from sandbox.contract import Contract

if TYPE_CHECKING:
    import torch

    from evaluators.preference.enumerable.feeds import Feed
    from evaluators.preference.enumerable.training import Trajectory
    from evaluators.preference.enumerable.worlds import Worlds
    from sandbox.oracle import LossOracle

_KEPT_SEEDS = 64  # about 1 MB each


class EnumerableEvaluator:
    """Six worlds per seed, one policy per world and beta, scored against the optimal policies.

    See `definition.py` for the constants and docs/evaluators/enumerable.md for the whole definition. Worlds are built at
    their first use and kept in memory, so later trials of a seed save that time.
    """

    name: ClassVar[str] = "preference.enumerable"
    version: ClassVar[int] = d.VERSION
    summary: ClassVar[str] = "341 responses per prompt, all enumerated: exact reward-KL frontier over six regimes"
    contract: ClassVar[Contract] = PAIRS
    metrics: ClassVar[tuple[MetricSpec, ...]] = metric_specs()
    primary_metric: ClassVar[str] = "frontier"
    arrays_doc: ClassVar[Mapping[str, str]] = {
        "worlds": "(6,) names of the regimes, in the order of every first axis",
        "betas": "(K,) the beta grid, in the order of every second axis",
        "checkpoints": "(C,) optimiser steps done at each checkpoint; the first is 0",
        "kl": "(6, K, C) KL from policy to reference, nats, mean over prompts",
        "reward": "(6, K, C) expected reward, in deviations of the reference, mean over prompts",
        "ranking_accuracy": "(6, K, C) expected share of held-out labels ranked right by log pi/ref",
        "chosen_change": "(6, K, C) mean log pi/ref of the training pairs' chosen responses, nats",
        "rejected_change": "(6, K, C) mean log pi/ref of the training pairs' rejected responses, nats",
        "loss": "(6, K, steps) mean loss of each step's batch, before the step",
        "margin": "(6, K, steps) mean log-ratio of the batch's preferred minus that of its other responses, nats",
        "score": "(6,) frontier of each world, a ratio; the paired unit of comparisons",
    }
    Options: ClassVar[type[EnumerableOptions]] = EnumerableOptions

    def __init__(self, options: Mapping[str, Any] | None = None, cache_dir: Path | None = None) -> None:
        """`cache_dir` is not used: nothing here is worth a file. Raises OptionsError."""
        self._options = parse_options(self.Options, options, self.name)
        self._worlds: OrderedDict[int, Worlds] = OrderedDict()

    @property
    def task(self) -> Task:
        content = canonical_json(d.definition())
        provenance = Provenance(
            "planted by evaluators/preference/enumerable", "Apache-2.0", hashlib.sha256(content.encode()).hexdigest()
        )
        return Task(self.name, self.version, options_dict(self._options), provenance)

    @property
    def task_description(self) -> str:
        return describe(self._options)

    @property
    def resources(self) -> Resources:
        """A tenth of a GPU if `device` is `cuda`: with `auto` a worker takes one if it sees one."""
        gpus = 0.1 if self._options.device == "cuda" else 0.0
        return Resources(cpus=float(self._options.threads), gpus=gpus, memory_mb=1024)

    @property
    def calls(self) -> Calls:
        """As `run` makes them: one batch of each world and beta."""
        return Calls(self._options.batch, self._options.betas)

    def prepare(self, progress: Callable[[str], None] | None = None) -> Mapping[str, float]:
        """Nothing is shared by all seeds; returns the size of the job. Raises OptionsError if the device is missing."""
        self._device()
        return {"worlds": float(len(d.REGIMES)), "runs": float(len(d.REGIMES) * len(self._options.betas))}

    def run(self, oracle: LossOracle, seed: int) -> TrialReport:
        """One trial: all worlds at all betas. Raises CandidateError or InfrastructureError out of the oracle.

        A policy whose weights overflow without a non-finite loss is a CandidateError too, raised by the training loop.
        """
        from evaluators.preference.enumerable.training import train

        device = self._device()
        calls, wall_s = oracle.calls, oracle.wall_s
        with torch_threads(self._options.threads):
            started = time.perf_counter()
            worlds = self._of_seed(seed)
            feed = self._feed(worlds, device, oracle.parameters)
            setup_s = time.perf_counter() - started
            trajectory = train(oracle, worlds, self._options, device, feed)
            before = time.perf_counter()
            metrics = score(worlds, trajectory)
            score_s = time.perf_counter() - before
        timings = Timings(setup_s, trajectory.train_s, trajectory.evaluate_s + score_s, oracle.wall_s - wall_s)
        return TrialReport(
            seed=seed,
            metrics=metrics,
            arrays=self._arrays(trajectory, [m.value for m in metrics if m.name.startswith("frontier/")]),
            timings=timings,
            device=str(device),
            threads=self._options.threads,
            versions=versions(),
            peak_memory_mb=peak_memory_mb(),
            oracle_calls=oracle.calls - calls,
            setup=_facts(worlds),
        )

    def _feed(self, worlds: Worlds, device: torch.device, reads: tuple[str, ...]) -> Feed:
        """What the loss is called with; `reads` are the inputs that it names."""
        from evaluators.preference.enumerable.feeds import PairFeed

        return PairFeed(worlds, self._options, device, reads)

    def _device(self) -> torch.device:
        import torch

        wanted, found = self._options.device, torch.cuda.is_available()
        if wanted == "cuda" and not found:
            raise OptionsError(f"{self.name}: device is cuda, but this process sees no GPU; use device=cpu or auto")
        return torch.device(("cuda" if found else "cpu") if wanted == "auto" else wanted)

    def _of_seed(self, seed: int) -> Worlds:
        from evaluators.preference.enumerable.worlds import build_worlds

        if seed not in self._worlds:
            with torch_threads(1):  # six tiny models: a second thread only waits for the first
                self._worlds[seed] = build_worlds(seed)
            while len(self._worlds) > _KEPT_SEEDS:
                self._worlds.popitem(last=False)
        self._worlds.move_to_end(seed)
        return self._worlds[seed]

    def _arrays(self, trajectory: Trajectory, scores: list[float]) -> dict[str, Any]:
        measured = {name: getattr(trajectory, name) for name in self.arrays_doc if hasattr(trajectory, name)}
        names = np.array([r.name for r in d.REGIMES])
        return {"worlds": names, "betas": np.array(self._options.betas), **measured, "score": np.array(scores)}


def _facts(worlds: Worlds) -> dict[str, float]:
    """What explains differences between seeds: entropy of the references and how well they fit their sources (nats)."""
    entropy = [-(np.exp(w.reference_logps) * w.reference_logps).sum(1).mean() for w in worlds.worlds]
    misfit = [(np.exp(w.source_logps) * (w.source_logps - w.reference_logps)).sum(1).mean() for w in worlds.worlds]
    return {"reference_entropy": float(np.mean(entropy)), "reference_misfit": float(np.mean(misfit))}
