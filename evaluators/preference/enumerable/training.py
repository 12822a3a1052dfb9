"""Packed training: one policy per world and beta, all in one forward and backward, with exact evaluation on the way.

Runs are ordered world-major: run = world * number of betas + beta. R runs, W worlds, K = R / W betas.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.base import training_progress
from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.feeds import Feed
from evaluators.preference.enumerable.model import Parameters, all_logps, response_logps
from evaluators.preference.enumerable.options import EnumerableOptions
from evaluators.preference.enumerable.worlds import Pairs, Worlds
from sandbox.failure import CandidateError, Failure, FailureKind

if TYPE_CHECKING:
    from sandbox.oracle import LossOracle


@dataclass(frozen=True)
class Trajectory:
    """What training left behind; all arrays (W, K, C) with C checkpoints unless said otherwise.

    Attributes:
        checkpoints: (C,) optimiser steps done, from 0.
        kl: nats from policy to reference, mean over prompts. Exactly 0 at step 0.
        reward: expected standardised reward, mean over prompts.
        ranking_accuracy: expected share of held-out labels that log pi/ref ranks right; a tie counts half.
        chosen_change, rejected_change: mean over training pairs of log pi/ref of the chosen and rejected response, nats.
        loss: (W, K, steps) mean loss of each step.
        margin: (W, K, steps) mean over the batch of log pi/ref of the chosen minus that of the rejected, before the step.
        train_s, evaluate_s: wall seconds.
    """

    checkpoints: NDArray[np.int64]
    kl: NDArray[np.float64]
    reward: NDArray[np.float64]
    ranking_accuracy: NDArray[np.float64]
    chosen_change: NDArray[np.float64]
    rejected_change: NDArray[np.float64]
    loss: NDArray[np.float32]
    margin: NDArray[np.float32]
    train_s: float
    evaluate_s: float


def train(
    oracle: LossOracle, worlds: Worlds, options: EnumerableOptions, device: torch.device, feed: Feed
) -> Trajectory:
    """Train every world at every beta with what `feed` says.

    Raises:
        CandidateError: from the oracle, or NON_FINITE when a policy's weights are no longer numbers.
    """
    betas, steps = options.betas, options.steps
    policy = worlds.reference.to(device).repeat(len(betas))
    optimiser = torch.optim.Adam(policy.tensors(), lr=options.learning_rate, fused=True)
    examiner = Examiner(worlds, options, device)
    losses, margins, checks = [], [], [examiner(policy, 0)]
    evaluate_s, started = 0.0, time.perf_counter()
    run_betas = list(betas) * len(worlds.worlds)
    for step in range(steps):
        inputs = feed.inputs(step, response_logps(policy, feed.batch(step)))
        scalars = feed.scalars(step, policy, inputs)
        scalars |= {"beta": run_betas, "progress": [training_progress(step, steps)] * len(run_betas)}
        loss = oracle(inputs, scalars)
        optimiser.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.detach())
        margins.append(feed.margin(inputs))
        if (step + 1) % d.CHECKPOINT_EVERY == 0:
            before = time.perf_counter()
            checks.append(examiner(policy, step + 1))
            evaluate_s += time.perf_counter() - before
    shape = (len(worlds.worlds), len(betas), -1)
    values = {name: torch.stack([c[name] for c in checks], 1).cpu().numpy().reshape(shape) for name in checks[0]}
    return Trajectory(
        checkpoints=np.arange(0, steps + 1, d.CHECKPOINT_EVERY),
        loss=torch.stack(losses, 1).cpu().numpy().reshape(shape),
        margin=torch.stack(margins, 1).cpu().numpy().reshape(shape),
        train_s=time.perf_counter() - started - evaluate_s,
        evaluate_s=evaluate_s,
        **values,
    )


class Examiner:
    """Exact evaluation of all policies by enumeration, in float64."""

    def __init__(self, worlds: Worlds, options: EnumerableOptions, device: torch.device) -> None:
        self._betas, self._device = options.betas, device
        self._names = [w.regime.name for w in worlds.worlds]
        self._reference = self._per_run([w.reference_logps for w in worlds.worlds])  # (R, 12, 341)
        self._rewards = self._per_run([w.rewards for w in worlds.worlds])
        held_out = [w.held_out for w in worlds.worlds]
        self._first = self._per_run([_cells(p.prompts, p.first) for p in held_out])  # (R, N)
        self._second = self._per_run([_cells(p.prompts, p.second) for p in held_out])
        self._preferred = self._per_run([p.preferred for p in held_out])
        self._chosen = self._per_run([_shares(w.train, w.train.first) for w in worlds.worlds])  # (R, 12 * 341)
        self._rejected = self._per_run([_shares(w.train, w.train.second) for w in worlds.worlds])

    def _per_run(self, rows: list[NDArray[np.float64]] | list[NDArray[np.int64]]) -> Tensor:
        return torch.from_numpy(np.stack(rows)).to(self._device).repeat_interleave(len(self._betas), 0)

    @torch.no_grad()
    def __call__(self, policy: Parameters, step: int) -> dict[str, Tensor]:
        """(R,) values of each per-checkpoint quantity of `Trajectory`."""
        logps = all_logps(policy)
        if step == 0:  # the reference itself, so that packing cannot leave a rounding difference
            logps = self._reference
        probs, ratio = logps.exp(), logps - self._reference
        margin = ratio.flatten(1).gather(1, self._first) - ratio.flatten(1).gather(1, self._second)
        right = torch.where(margin > 0, self._preferred, 1 - self._preferred)
        values = {
            "kl": (probs * ratio).sum(2).mean(1).clamp(min=0),
            "reward": (probs * self._rewards).sum(2).mean(1),
            "ranking_accuracy": torch.where(margin.abs() < d.TIE, 0.5, right).mean(1),
            "chosen_change": (self._chosen * ratio.flatten(1)).sum(1),
            "rejected_change": (self._rejected * ratio.flatten(1)).sum(1),
        }
        self._require_finite(values, step)
        return values

    def _require_finite(self, values: Mapping[str, Tensor], step: int) -> None:
        for name, value in values.items():
            if bool(value.isfinite().all()):
                continue
            run = int((~value.isfinite()).nonzero()[0])
            world, beta = self._names[run // len(self._betas)], self._betas[run % len(self._betas)]
            message = f"the policy's {name} is {float(value[run])} after {step} steps (world {world}, beta={beta:.4g})"
            raise CandidateError(Failure(FailureKind.NON_FINITE, message))


def _cells(prompts: NDArray[np.int64], answers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions in a flattened (12, 341) table."""
    return np.asarray(prompts * d.RESPONSES + answers)


def _shares(pairs: Pairs, answers: NDArray[np.int64]) -> NDArray[np.float64]:
    """(12 * 341,) share of the pairs that have each (prompt, response) as the given side."""
    counts = np.bincount(_cells(pairs.prompts, answers), minlength=len(d.PROMPTS) * d.RESPONSES)
    return np.asarray(counts / pairs.prompts.size)
