"""What a loss is called with at every step: here pairs, of all worlds in all runs (`unpaired.py` has single responses).

Optional inputs are made only for a candidate that names them. In one world all runs, and in one seed all candidates of a
contract, see the same responses. W worlds, K runs of each, R = W * K (world-major), N examples a step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.preference.enumerable.model import Batch
from evaluators.preference.enumerable.options import EnumerableOptions
from evaluators.preference.enumerable.worlds import Worlds, batch_schedule
from evaluators.preference.running import MovingMean, RunningMean

LogProbs = Callable[[Batch], Tensor]


class Feed(Protocol):
    """The examples of one trial, step by step. Calls come in the order batch, inputs, scalars of step 0, 1, ..."""

    def batch(self, step: int) -> Batch:
        """The responses whose log-probs under the policy are needed."""

    def inputs(self, step: int, logps: Tensor) -> dict[str, Tensor]:
        """(R, N) tensors by contract name; `logps` are those of `batch(step)` under the policies."""

    def scalars(self, step: int, score: LogProbs, inputs: Mapping[str, Tensor]) -> dict[str, list[float]]:
        """R values of each running statistic by contract name, before the step; `score` gives the policies' log-probs."""

    def margin(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(R,) mean log-ratio of what is preferred minus that of what is not, nats."""


class Constants:
    """Constants of every step, made on the CPU once: (W, steps, N) arrays by name, given out as (R, N) tensors."""

    def __init__(self, runs: int, device: torch.device) -> None:
        self._runs, self._device = runs, device
        self._arrays: dict[str, NDArray[np.float32]] = {}

    def add(self, name: str, rows: list[NDArray[np.float64]] | list[NDArray[np.int64]]) -> None:
        self._arrays[name] = np.stack(rows).astype(np.float32)

    def __call__(self, name: str, step: int) -> Tensor:
        return torch.from_numpy(self._arrays[name][:, step]).to(self._device).repeat_interleave(self._runs, 0)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays


class PairFeed:
    """Pairs: the chosen responses and the rejected ones."""

    def __init__(
        self, worlds: Worlds, options: EnumerableOptions, device: torch.device, reads: Collection[str] = ()
    ) -> None:
        order = [batch_schedule(worlds.seed, w.regime, options.steps, options.batch) for w in worlds.worlds]
        pairs = [w.train for w in worlds.worlds]
        rows = list(zip(pairs, order, strict=True))
        self._prompts = np.stack([np.concatenate([p.prompts[o]] * 2, 1) for p, o in rows])  # (W, steps, 2N)
        self._responses = np.stack([np.concatenate([p.first[o], p.second[o]], 1) for p, o in rows])
        self._device, self._tree, self._reads = device, worlds.tree, reads
        self._constants = Constants(options.runs, device)
        cells = list(zip(worlds.worlds, self._prompts, self._responses, strict=True))
        self._constants.add("reference", [w.reference_logps[prompts, answers] for w, prompts, answers in cells])
        if {"chosen_length", "rejected_length"} & {*reads}:
            self._constants.add("length", [worlds.tree.lengths[answers] + 1 for _, _, answers in cells])
        if {"chosen_score", "rejected_score"} & {*reads}:
            self._constants.add("score", [w.proxies[prompts, answers] for w, prompts, answers in cells])
        if "preference_probability" in reads:
            labels = zip(worlds.worlds, order, strict=True)
            self._constants.add("preference_probability", [w.soft_labels[o] for w, o in labels])
        self._running, self._moving = RunningMean(), MovingMean()

    def batch(self, step: int) -> Batch:
        return Batch.of(self._prompts[:, step], self._responses[:, step], self._tree, self._device)

    def inputs(self, step: int, logps: Tensor) -> dict[str, Tensor]:
        chosen, rejected = logps.chunk(2, 1)
        reference_chosen, reference_rejected = self._constants("reference", step).chunk(2, 1)
        found = {
            "policy_chosen_logps": chosen,
            "policy_rejected_logps": rejected,
            "reference_chosen_logps": reference_chosen,
            "reference_rejected_logps": reference_rejected,
        }
        for name in ("length", "score"):
            if name in self._constants:
                found[f"chosen_{name}"], found[f"rejected_{name}"] = self._constants(name, step).chunk(2, 1)
        if "preference_probability" in self._constants:
            found["preference_probability"] = self._constants("preference_probability", step)
        return found

    def scalars(self, step: int, score: LogProbs, inputs: Mapping[str, Tensor]) -> dict[str, list[float]]:
        if not {"running_log_ratio", "moving_margin"} & {*self._reads}:
            return {}
        found = {}
        ratios = [inputs[f"policy_{s}_logps"].detach() - inputs[f"reference_{s}_logps"] for s in ("chosen", "rejected")]
        if "running_log_ratio" in self._reads:
            found["running_log_ratio"] = self._running.update(torch.cat(ratios, 1))
        if "moving_margin" in self._reads:
            found["moving_margin"] = self._moving.update(ratios[0] - ratios[1])
        return found

    def margin(self, inputs: Mapping[str, Tensor]) -> Tensor:
        chosen = inputs["policy_chosen_logps"].detach() - inputs["reference_chosen_logps"]
        rejected = inputs["policy_rejected_logps"].detach() - inputs["reference_rejected_logps"]
        return (chosen - rejected).mean(1)
