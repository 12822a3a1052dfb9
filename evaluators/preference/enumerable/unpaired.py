"""Single labelled responses out of the pairs of a world, for losses of the contract `preference.unpaired`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.feeds import Constants, LogProbs
from evaluators.preference.enumerable.model import Batch
from evaluators.preference.enumerable.options import UnpairedOptions
from evaluators.preference.enumerable.worlds import World, Worlds
from evaluators.preference.running import RunningMean

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Schedule:
    """The examples of every step in one world: (steps, N) indices of prompts and responses, and their labels."""

    prompts: Ints
    responses: Ints
    desirable: Ints


def schedule(seed: int, world: World, options: UnpairedOptions) -> Schedule:
    """Permutations of all examples that are kept, one after the other.

    An example is one side of a training pair. The kept share of each side is drawn once per seed and world.
    """
    pairs, regime = world.train, world.regime.name
    keep = d.generator(seed, regime, "kept examples")
    kept = []
    for share in (options.desirable_kept, options.undesirable_kept):
        kept.append(keep.permutation(pairs.prompts.size)[: round(share * pairs.prompts.size)])
    prompts = np.concatenate([pairs.prompts[k] for k in kept])
    answers = np.concatenate([pairs.first[kept[0]], pairs.second[kept[1]]])
    labels = np.repeat([1, 0], [k.size for k in kept])
    random, count = d.generator(seed, regime, "unpaired batches"), options.steps * options.batch
    epochs = -(-count // prompts.size)
    order = np.concatenate([random.permutation(prompts.size) for _ in range(epochs)])[:count]
    order = order.reshape(options.steps, options.batch)
    return Schedule(prompts[order], answers[order], labels[order])


def reference_samples(seed: int, world: World, prompts: Ints) -> Ints:
    """One response of the reference to each of these prompts (any shape), by inversion of its cumulative distribution."""
    cumulative = np.cumsum(np.exp(world.reference_logps), 1)  # (12, Y)
    uniform = d.generator(seed, world.regime.name, "reference samples").random(prompts.shape)
    found = np.empty_like(prompts)
    for prompt, row in enumerate(cumulative):
        here = prompts == prompt
        found[here] = np.searchsorted(row, uniform[here] * row[-1], side="right")
    return found.clip(max=cumulative.shape[1] - 1)


class UnpairedFeed:
    """Single responses with labels: of each training pair, the chosen one is desirable and the rejected one is not.

    Which two belong together is not told: they come in an order of their own, at different steps.
    """

    def __init__(
        self, worlds: Worlds, options: UnpairedOptions, device: torch.device, reads: Collection[str] = ()
    ) -> None:
        self._device, self._tree, self._runs, self._reads = device, worlds.tree, options.runs, reads
        self._constants = Constants(options.runs, device)
        drawn = [schedule(worlds.seed, w, options) for w in worlds.worlds]
        self._prompts = np.stack([s.prompts for s in drawn])  # (W, steps, N)
        self._responses = np.stack([s.responses for s in drawn])
        self._constants.add("desirable", [s.desirable for s in drawn])
        cells = list(zip(worlds.worlds, self._prompts, self._responses, strict=True))
        self._constants.add("reference_logps", [w.reference_logps[p, a] for w, p, a in cells])
        if "length" in reads:
            self._constants.add("length", [worlds.tree.lengths[answers] + 1 for _, _, answers in cells])
        if "score" in reads:
            self._constants.add("score", [w.proxies[p, a] for w, p, a in cells])
        if "score_quantile" in reads:
            self._constants.add("score_quantile", [_quantiles(w)[p, a] for w, p, a in cells])
        self._samples: Ints | None = None
        if {"sample_policy_logps", "sample_reference_logps"} & {*reads}:
            asked = zip(worlds.worlds, self._prompts, strict=True)
            self._samples = np.stack([reference_samples(worlds.seed, w, prompts) for w, prompts in asked])
            sampled = zip(worlds.worlds, self._prompts, self._samples, strict=True)
            self._constants.add("sample_reference_logps", [w.reference_logps[p, a] for w, p, a in sampled])
        self._reference = np.stack([w.reference_logps for w in worlds.worlds])  # (W, 12, Y)
        self._running = RunningMean()

    def batch(self, step: int) -> Batch:
        prompts, answers = self._prompts[:, step], self._responses[:, step]
        if self._samples is not None:
            prompts, answers = np.concatenate([prompts] * 2, 1), np.concatenate([answers, self._samples[:, step]], 1)
        return Batch.of(prompts, answers, self._tree, self._device)

    def inputs(self, step: int, logps: Tensor) -> dict[str, Tensor]:
        found = {"policy_logps": logps}
        if self._samples is not None:
            found["policy_logps"], found["sample_policy_logps"] = logps.chunk(2, 1)
        names = ("reference_logps", "desirable", "length", "score", "score_quantile", "sample_reference_logps")
        return found | {name: self._constants(name, step) for name in names if name in self._constants}

    def scalars(self, step: int, score: LogProbs, inputs: Mapping[str, Tensor]) -> dict[str, list[float]]:
        found = {}
        if "running_log_ratio" in self._reads:
            ratios = inputs["policy_logps"].detach() - inputs["reference_logps"]
            found["running_log_ratio"] = self._running.update(ratios)
        if "kl_estimate" in self._reads:
            found["kl_estimate"] = self._kl_estimate(step, score)
        return found

    @torch.no_grad()
    def _kl_estimate(self, step: int, score: LogProbs) -> list[float]:
        """Mean log-ratio of responses to the batch's other prompts, at least 0, as KTO estimates it.

        Each response is put to the prompt of the example before it.
        """
        prompts, answers = np.roll(self._prompts[:, step], 1, 1), self._responses[:, step]
        logps = score(Batch.of(prompts, answers, self._tree, self._device))
        rows = np.arange(len(prompts))[:, None]
        reference = torch.from_numpy(self._reference[rows, prompts, answers].astype(np.float32)).to(self._device)
        ratios = logps - reference.repeat_interleave(self._runs, 0)
        found: list[float] = ratios.double().mean(1).clamp(min=0.0).tolist()
        return found

    def margin(self, inputs: Mapping[str, Tensor]) -> Tensor:
        ratios, label = inputs["policy_logps"].detach() - inputs["reference_logps"], inputs["desirable"]
        return _mean_where(ratios, label) - _mean_where(ratios, 1 - label)


def _mean_where(values: Tensor, weights: Tensor) -> Tensor:
    """(R,) mean of those with weight 1; 0 where there are none."""
    return (values * weights).sum(1) / weights.sum(1).clamp(min=1)


def _quantiles(world: World) -> NDArray[np.float64]:
    """(12, Y) probability under the reference of a response to the prompt whose score is at most this one's."""
    order = np.argsort(world.proxies, 1)
    probs = np.exp(np.take_along_axis(world.reference_logps, order, 1))
    found = np.empty_like(probs)
    np.put_along_axis(found, order, np.cumsum(probs, 1) / probs.sum(1, keepdims=True), 1)
    return np.asarray(np.minimum(found, 1.0))
