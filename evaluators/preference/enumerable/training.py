"""Packed training: one policy per world, learning rate and beta, all in one forward and backward, with exact evaluation.

Runs are ordered by world, then learning rate, then beta. R runs, W worlds, L learning rates, B betas, K = L * B.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.base import training_progress
from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.feeds import Feed
from evaluators.preference.enumerable.model import Batch, all_logps, response_logps
from evaluators.preference.enumerable.options import EnumerableOptions
from evaluators.preference.enumerable.worlds import Pairs, World, Worlds
from evaluators.preference.gradients import normalised
from sandbox.failure import CandidateError, Failure, FailureKind

if TYPE_CHECKING:
    from sandbox.oracle import LossOracle

Arrays = NDArray[np.float64]


@dataclass(frozen=True)
class Trajectory:
    """What training left behind; all arrays (W, L, B, C) with C checkpoints unless said otherwise, NaN where a run diverged.

    Attributes:
        checkpoints: (C,) optimiser steps done, from 0.
        kl: nats from policy to reference, mean over prompts. Exactly 0 at step 0.
        reward: expected standardised reward, mean over prompts.
        ranking_accuracy: expected share of held-out labels that log pi/ref ranks right; a tie counts half.
        chosen_change, rejected_change: mean over training pairs of log pi/ref of the chosen and rejected response, nats.
        loss: (W, L, B, steps) mean loss of each step.
        margin: (W, L, B, steps) mean over the batch of log pi/ref of the chosen minus that of the rejected, before the step.
        train_s, evaluate_s: wall seconds.
    """

    checkpoints: NDArray[np.int64]
    kl: Arrays
    reward: Arrays
    ranking_accuracy: Arrays
    chosen_change: Arrays
    rejected_change: Arrays
    loss: NDArray[np.float32]
    margin: NDArray[np.float32]
    train_s: float
    evaluate_s: float


class Policies:
    """The output layers of all runs, and their optimiser."""

    def __init__(self, worlds: Worlds, options: EnumerableOptions, device: torch.device) -> None:
        self._features = torch.from_numpy(np.stack([w.features for w in worlds.worlds])).to(device)  # (W, 12 * C, F)
        start = torch.from_numpy(np.stack([w.output for w in worlds.worlds])).to(device)[..., None]  # (W, F, 3, 1)
        self._rates, self._tree = options.used_learning_rates, worlds.tree
        betas = len(options.used_betas)
        self._layers = [start.repeat(1, 1, 1, betas).requires_grad_(True) for _ in self._rates]  # (W, F, 3, B) each
        groups = [{"params": [layer], "lr": rate} for layer, rate in zip(self._layers, self._rates, strict=True)]
        self._adam = torch.optim.Adam(groups, betas=d.ADAM_BETAS, eps=d.ADAM_EPS, fused=True)

    def score(self, batch: Batch) -> Tensor:
        """(R, M) log-probs of a batch's responses."""
        return response_logps(self._features, torch.cat(self._layers, 3), batch, self._tree.max_length)

    def step(self, share: float) -> None:
        """One step of Adam at this share of each learning rate, along gradients of norm 1 in each run.

        What only scales the gradient of a batch, be it a constant, a schedule or a statistic of the batch, changes nothing.
        """
        for layer in self._layers:
            assert layer.grad is not None
            layer.grad = normalised(layer.grad, (1, 2))
        for group, rate in zip(self._adam.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        self._adam.step()
        self._adam.zero_grad()

    @torch.no_grad()
    def everywhere(self, world: int) -> Tensor:
        """(K, 12, Y) log-probs of every response in one world."""
        return all_logps(self._features[world], torch.cat([layer[world] for layer in self._layers], 2), self._tree)


def train(
    oracle: LossOracle, worlds: Worlds, options: EnumerableOptions, device: torch.device, feed: Feed
) -> Trajectory:
    """Train every world at every learning rate and beta with what `feed` says.

    A run whose loss, gradient or policy is no longer a number has diverged: it trains no further and has no values.

    Raises:
        CandidateError: from the oracle, or NON_FINITE when all runs of a world have diverged.
    """
    policies, steps = Policies(worlds, options, device), options.steps
    runs = len(worlds.worlds) * options.runs
    run_betas = list(options.used_betas) * (runs // len(options.used_betas))
    alive = torch.ones(runs, dtype=torch.bool)
    losses, margins, checks = [], [], [_at_the_reference(worlds, options.runs)]
    evaluate_s, started = 0.0, time.perf_counter()
    for step in range(steps):
        inputs = feed.inputs(step, policies.score(feed.batch(step)))
        scalars = feed.scalars(step, policies.score, inputs)
        scalars |= {"beta": run_betas, "progress": [training_progress(step, steps)] * runs}
        loss, finite = oracle.tolerant(inputs, scalars)
        alive &= finite.cpu()
        torch.where(alive.to(device), loss, 0.0).sum().backward()  # type: ignore[no-untyped-call]
        policies.step(0.5 * (1 + math.cos(math.pi * step / steps)))
        losses.append(torch.where(alive.to(device), loss.detach(), torch.nan))
        margins.append(feed.margin(inputs))
        if (step + 1) % (steps // d.CHECKPOINTS) == 0:
            before = time.perf_counter()
            checks.append(np.concatenate([examine(w, policies.everywhere(i)) for i, w in enumerate(worlds.worlds)], 1))
            alive &= torch.from_numpy(np.isfinite(checks[-1]).all(0))
            checks[-1][:, ~alive.numpy()] = np.nan
            _require_a_survivor(alive, worlds, options, step + 1)
            evaluate_s += time.perf_counter() - before
    shape = (len(worlds.worlds), len(options.used_learning_rates), len(options.used_betas), -1)
    kl, reward, accuracy, chosen, rejected = (v.reshape(shape) for v in np.stack(checks, 2))
    return Trajectory(
        np.arange(0, steps + 1, steps // d.CHECKPOINTS),
        kl,
        reward,
        accuracy,
        chosen,
        rejected,
        loss=torch.stack(losses, 1).cpu().numpy().reshape(shape),
        margin=torch.stack(margins, 1).cpu().numpy().reshape(shape),
        train_s=time.perf_counter() - started - evaluate_s,
        evaluate_s=evaluate_s,
    )


def examine(world: World, logps: Tensor) -> Arrays:
    """(5, K) exact KL, reward, ranking accuracy, and changes of the chosen and rejected, from (K, 12, Y) log-probs."""
    reference, rewards = (torch.from_numpy(v).to(logps.device) for v in (world.reference_logps, world.rewards))
    probs, ratio = logps.exp(), logps - reference

    def of(pairs: Pairs, answers: NDArray[np.int64]) -> Tensor:
        return ratio[:, torch.from_numpy(pairs.prompts), torch.from_numpy(answers)]  # (K, N)

    held_out, train = world.held_out, world.train
    margin = of(held_out, held_out.first) - of(held_out, held_out.second)
    preferred = torch.from_numpy(world.preferred).to(logps.device)
    right = torch.where(margin > 0, preferred, 1 - preferred)
    values = (
        (probs * ratio).sum(2).mean(1).clamp(min=0),
        (probs * rewards).sum(2).mean(1),
        torch.where(margin.abs() < d.TIE, 0.5, right).mean(1),
        of(train, train.first).mean(1),
        of(train, train.second).mean(1),
    )
    return torch.stack(values).cpu().numpy()


def _at_the_reference(worlds: Worlds, runs: int) -> Arrays:
    """(5, R) values of the reference itself, so that no rounding gives it a KL."""
    rows = [examine(w, torch.from_numpy(w.reference_logps)[None]).repeat(runs, 1) for w in worlds.worlds]
    return np.concatenate(rows, 1)


def _require_a_survivor(alive: Tensor, worlds: Worlds, options: EnumerableOptions, step: int) -> None:
    for world, runs in zip(worlds.worlds, alive.view(-1, options.runs), strict=True):
        if not bool(runs.any()):
            message = (
                f"the loss, its gradient or the policy is no longer a number within {step} steps, at every beta and "
                f"learning rate (world {world.regime.name})"
            )
            raise CandidateError(Failure(FailureKind.NON_FINITE, message))
