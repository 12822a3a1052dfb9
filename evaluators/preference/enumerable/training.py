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
from evaluators.preference.enumerable.model import Batch, Parameters, all_logps, response_logps
from evaluators.preference.enumerable.options import EnumerableOptions
from evaluators.preference.enumerable.worlds import Pairs, Worlds, batch_schedule
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


def train(oracle: LossOracle, worlds: Worlds, options: EnumerableOptions, device: torch.device) -> Trajectory:
    """Train every world at every beta.

    Raises:
        CandidateError: from the oracle, or NON_FINITE when a policy's weights are no longer numbers.
    """
    betas, steps = options.betas, options.steps
    policy = worlds.reference.to(device).repeat(len(betas))
    optimiser = torch.optim.Adam(policy.tensors(), lr=options.learning_rate, fused=True)
    batches = Batches(worlds, options, device)
    examiner = Examiner(worlds, options, device)
    losses, margins, checks = [], [], [examiner(policy, 0)]
    evaluate_s, started = 0.0, time.perf_counter()
    run_betas = list(betas) * len(worlds.worlds)
    for step in range(steps):
        batch, reference = batches(step)
        inputs = _oracle_inputs(response_logps(policy, batch), reference)
        loss = oracle(inputs, {"beta": run_betas, "progress": [training_progress(step, steps)] * len(run_betas)})
        optimiser.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.detach())
        margins.append(_margin(inputs))
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


def _oracle_inputs(policy: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Both (R, 2B), the chosen responses first."""
    chosen, rejected = policy.chunk(2, 1)
    reference_chosen, reference_rejected = reference.chunk(2, 1)
    return {
        "policy_chosen_logps": chosen,
        "policy_rejected_logps": rejected,
        "reference_chosen_logps": reference_chosen,
        "reference_rejected_logps": reference_rejected,
    }


def _margin(inputs: Mapping[str, Tensor]) -> Tensor:
    """(R,) mean log-ratio margin."""
    chosen = inputs["policy_chosen_logps"].detach() - inputs["reference_chosen_logps"]
    rejected = inputs["policy_rejected_logps"].detach() - inputs["reference_rejected_logps"]
    return (chosen - rejected).mean(1)


class Batches:
    """The batch of every step: in one world all betas, and in one seed all candidates, see the same pairs."""

    def __init__(self, worlds: Worlds, options: EnumerableOptions, device: torch.device) -> None:
        order = [batch_schedule(worlds.seed, w.regime, options.steps, options.batch) for w in worlds.worlds]
        pairs = [w.train for w in worlds.worlds]
        rows = list(zip(pairs, order, strict=True))
        self._prompts = np.stack([np.concatenate([p.prompts[o]] * 2, 1) for p, o in rows])  # (W, steps, 2B)
        self._responses = np.stack([np.concatenate([p.first[o], p.second[o]], 1) for p, o in rows])
        self._reference = np.stack(
            [
                w.reference_logps[prompts, answers]
                for w, prompts, answers in zip(worlds.worlds, self._prompts, self._responses, strict=True)
            ]
        ).astype(np.float32)
        self._device, self._betas = device, len(options.betas)

    def __call__(self, step: int) -> tuple[Batch, Tensor]:
        """The step's responses, chosen ones first, and their reference log-probs (R, 2B)."""
        batch = Batch.of(self._prompts[:, step], self._responses[:, step], self._device, self._betas)
        reference = torch.from_numpy(self._reference[:, step]).to(self._device)
        return batch, reference.repeat_interleave(self._betas, 0)


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
