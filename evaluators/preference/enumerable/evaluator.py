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
from evaluators.preference.enumerable.description import describe, narrow
from evaluators.preference.enumerable.options import EnumerableOptions
from evaluators.preference.enumerable.responses import tree
from evaluators.preference.enumerable.scoring import metric_specs, score
from sandbox.contract import Contract

if TYPE_CHECKING:
    import torch

    from evaluators.preference.enumerable.feeds import Feed
    from evaluators.preference.enumerable.training import Trajectory
    from evaluators.preference.enumerable.worlds import Worlds
    from sandbox.oracle import LossOracle

_KEPT_SEEDS = 4  # 100 MB each


class EnumerableEvaluator:
    """Ten worlds per seed, in each one policy per learning rate and beta, scored against the optimal policies.

    See `definition.py` for the constants and docs/evaluators/enumerable.md for the whole definition. Worlds are built at
    their first use and kept in memory, so later trials of a seed save that time.
    """

    name: ClassVar[str] = "preference.enumerable"
    version: ClassVar[int] = d.VERSION
    summary: ClassVar[str] = (
        "2,047 responses per prompt, all enumerated: exact reward-KL frontier over ten regimes, at tuned learning rates"
    )
    contract: ClassVar[Contract] = PAIRS
    metrics: ClassVar[tuple[MetricSpec, ...]] = metric_specs()
    primary_metric: ClassVar[str] = "frontier"
    arrays_doc: ClassVar[Mapping[str, str]] = {
        "worlds": "(W,) names of the regimes, in the order of every first axis",
        "learning_rates": "(L,) the grid of learning rates, in the order of every second axis",
        "betas": "(B,) the grid of beta, in the order of every third axis",
        "checkpoints": "(C,) optimiser steps done at each checkpoint; the first is 0",
        "kl": "(W, L, B, C) KL from policy to reference, nats, mean over prompts; here and below NaN once a run diverged",
        "reward": "(W, L, B, C) expected reward, in deviations of the reference, mean over prompts",
        "ranking_accuracy": "(W, L, B, C) expected share of held-out labels ranked right by log pi/ref",
        "chosen_change": "(W, L, B, C) mean log pi/ref of the training pairs' chosen responses, nats",
        "rejected_change": "(W, L, B, C) mean log pi/ref of the training pairs' rejected responses, nats",
        "loss": "(W, L, B, steps) mean loss of each step's batch, before the step",
        "margin": "(W, L, B, steps) mean log-ratio of the batch's preferred minus that of its other responses, nats",
        "score": "(W,) frontier of each world, a ratio; the paired unit of comparisons",
    }
    Options: ClassVar[type[EnumerableOptions]] = EnumerableOptions

    def __init__(self, options: Mapping[str, Any] | None = None, cache_dir: Path | None = None) -> None:
        """`cache_dir` is not used: nothing here is worth a file. Raises OptionsError."""
        self._options = parse_options(self.Options, options, self.name)
        self.metrics = metric_specs(self._options.used_regimes)  # type: ignore[misc]  # fewer than the class's, with some worlds
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
        """As `run` makes them: one batch of each world, learning rate and beta."""
        return Calls(self._options.batch, self._options.used_betas)

    def prepare(self, progress: Callable[[str], None] | None = None) -> Mapping[str, float]:
        """Nothing is shared by all seeds; returns the size of the job, and tells what a grid of one value means.

        Raises:
            OptionsError: the device is missing.
        """
        self._device()
        if progress is not None:
            for text in narrow(self._options):
                progress(text)
        worlds = len(self._options.used_regimes)
        return {"worlds": float(worlds), "runs": float(worlds * self._options.runs)}

    def run(self, oracle: LossOracle, seed: int) -> TrialReport:
        """One trial: all worlds at all learning rates and betas.

        Raises CandidateError or InfrastructureError out of the oracle, and CandidateError when all runs of a world diverge.
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
            with torch_threads(1):  # small products: a second thread only waits for the first
                self._worlds[seed] = build_worlds(seed, self._options.used_regimes, tree(self._options.max_length))
            while len(self._worlds) > _KEPT_SEEDS:
                self._worlds.popitem(last=False)
        self._worlds.move_to_end(seed)
        return self._worlds[seed]

    def _arrays(self, trajectory: Trajectory, scores: list[float]) -> dict[str, Any]:
        measured = {name: getattr(trajectory, name) for name in self.arrays_doc if hasattr(trajectory, name)}
        used = self._options
        return {
            "worlds": np.array([r.name for r in used.used_regimes]),
            "learning_rates": np.array(used.used_learning_rates),
            "betas": np.array(used.used_betas),
            **measured,
            "score": np.array(scores),
        }


def _facts(worlds: Worlds) -> dict[str, float]:
    """What explains differences between seeds: entropy of the references, nats, and tokens of their responses."""
    probs = [np.exp(w.reference_logps) for w in worlds.worlds]
    entropy = [-(p * w.reference_logps).sum(1).mean() for p, w in zip(probs, worlds.worlds, strict=True)]
    length = [(p * worlds.tree.lengths).sum(1).mean() for p in probs]
    return {"reference_entropy": float(np.mean(entropy)), "reference_length": float(np.mean(length))}
