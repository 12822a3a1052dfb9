"""Pairs of a seed, and training on them: output layers for all betas, in one pass over the batches.

The transformer below the output layer stays as supervised training left it, so what it says of a response is computed once.
R policies, one for each beta; B pairs in a batch; S response tokens; D the width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from evaluators.base import training_progress
from evaluators.preference.gradients import normalised
from evaluators.preference.running import MovingMean, RunningMean
from evaluators.preference.sentiment.model import PAD, LanguageModel
from evaluators.preference.sentiment.options import Plan
from evaluators.preference.sentiment.output_layer import response_logps
from evaluators.preference.sentiment.reward import SentimentReward
from evaluators.preference.sentiment.sampling import sample
from sandbox.failure import CandidateError, Failure, FailureKind

MOMENTUM = 0.9  # of Nesterov's kind


class PairLoss(Protocol):
    """What trains: a `LossOracle`, or a loss of our own."""

    @property
    def parameters(self) -> Sequence[str]:
        """Names of the inputs that it reads."""

    def tolerant(self, inputs: Mapping[str, Tensor], scalars: Mapping[str, Sequence[float]]) -> tuple[Tensor, Tensor]:
        """(R,) mean losses, and which of them, with their gradients, are numbers."""


@dataclass(frozen=True)
class TrainingSet:
    """The pairs one seed trains on, in the order it takes them; the same for every beta and every loss.

    Attributes:
        states: (pairs, 2, S, D) hidden states of the chosen response, then of the rejected one.
        targets: (pairs, 2, S) their tokens.
        logps: (pairs, 2) their log-probs under the reference.
        rewards: (pairs, 2) their rewards.
        preferred: (pairs,) probability that the labelling prefers the chosen one.
        batches: (steps, B) row numbers.
        flipped: share of pairs whose chosen response has the lower reward (label noise).
    """

    states: Tensor
    targets: Tensor
    logps: Tensor
    rewards: Tensor
    preferred: Tensor
    batches: Tensor
    flipped: float


@dataclass(frozen=True)
class Trained:
    """What training left.

    Attributes:
        layers: (R, outputs, D + 1) output layers of the policies.
        alive: (R,) whether a policy is still made of numbers; the others have diverged.
        loss, margin, chosen_change: (R, steps) before each step: mean loss, mean chosen minus rejected log-ratio to the
            reference, and mean log-ratio of the chosen one, both in nats. NaN once a policy has diverged.
    """

    layers: Tensor
    alive: Tensor
    loss: Tensor
    margin: Tensor
    chosen_change: Tensor


def training_set(
    sft: LanguageModel, prompts: Tensor, reward: SentimentReward, plan: Plan, noise: torch.Generator
) -> TrainingSet:
    """Sample pairs of responses to prompts drawn from `prompts`, label them, and shuffle them into batches."""
    length = sft.size.context - prompts.shape[1]
    starts = prompts[torch.randint(len(prompts), (plan.pairs,), generator=noise)].repeat_interleave(2, 0)
    drawn = sample(sft, starts, noise, length)
    rewards = reward(drawn.tokens).view(-1, 2)
    preferred = torch.sigmoid(plan.sharpness * (rewards[:, 0] - rewards[:, 1]))
    first_wins = torch.rand(plan.pairs, generator=noise, dtype=preferred.dtype) < preferred
    order = torch.stack([~first_wins, first_wins], 1).long()  # column of the chosen, column of the rejected
    rewards = rewards.gather(1, order)

    def ordered(values: Tensor) -> Tensor:
        return values.view(plan.pairs, 2, *values.shape[1:])[torch.arange(plan.pairs).unsqueeze(1), order]

    return TrainingSet(
        states=ordered(drawn.states),
        targets=ordered(drawn.tokens[:, -length:]),
        logps=ordered(drawn.logps.double().sum(1)),
        rewards=rewards,
        preferred=torch.where(first_wins, preferred, 1 - preferred),
        batches=_batches(plan, noise),
        flipped=float((rewards[:, 0] < rewards[:, 1]).double().mean()),
    )


def _batches(plan: Plan, noise: torch.Generator) -> Tensor:
    """(steps, batch) row numbers, each row at most once per pass; the rest of a pass too short for a batch is dropped."""
    batches, queue = [], torch.zeros(0, dtype=torch.int64)
    for _ in range(plan.steps):
        if len(queue) < plan.batch:
            queue = torch.randperm(plan.pairs, generator=noise)
        batches.append(queue[: plan.batch])
        queue = queue[plan.batch :]
    return torch.stack(batches)


def train(start: Tensor, data: TrainingSet, plan: Plan, loss: PairLoss) -> Trained:
    """Train an output layer for each beta from `start`, on its device, by Nesterov momentum along gradients of norm 1.

    A policy whose loss, gradient or log-probs are no longer numbers trains no further.

    Raises:
        CandidateError: from the oracle, or NON_FINITE when every policy has diverged.
    """
    layers = start.repeat(len(plan.betas), 1, 1).requires_grad_(True)
    optimiser = torch.optim.SGD([layers], lr=plan.lr, momentum=MOMENTUM, nesterov=True)
    alive = torch.ones(len(plan.betas), dtype=torch.bool)
    curves: list[Tensor] = []
    feed = _Feed(data, plan, loss.parameters, start.device)
    for step in range(plan.steps):
        inputs, scalars = feed(step, layers)
        values, finite = loss.tolerant(inputs, scalars)
        alive &= finite.cpu()
        torch.where(alive.to(start.device), values, 0.0).sum().backward()  # type: ignore[no-untyped-call]
        assert layers.grad is not None
        layers.grad = normalised(layers.grad, (1, 2))
        optimiser.param_groups[0]["lr"] = plan.lr * 0.5 * (1 + math.cos(math.pi * step / plan.steps))
        optimiser.step()
        optimiser.zero_grad()
        curves.append(torch.where(alive, torch.stack([values.detach().cpu(), *feed.changes(inputs)]), torch.nan))
        alive &= layers.detach().sum((1, 2)).isfinite().cpu()  # one number that is none spoils the sum
        _require_a_survivor(alive, step + 1)
    means, margins, chosen = torch.stack(curves, 2)
    return Trained(layers.detach(), alive, means, margins, chosen)


class _Feed:
    """What a loss is called with, step by step."""

    def __init__(self, data: TrainingSet, plan: Plan, reads: Sequence[str], device: torch.device) -> None:
        self._data, self._plan, self._reads, self._device = data, plan, reads, device
        self._running, self._moving = RunningMean(), MovingMean()

    def __call__(self, step: int, layers: Tensor) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
        """(R, B) inputs and R values of each scalar."""
        rows, runs = self._data.batches[step], len(layers)
        states = (
            self._data.states[rows].transpose(0, 1).flatten(0, 1).to(self._device)
        )  # (2 B, S, D), chosen ones first
        targets = self._data.targets[rows].transpose(0, 1).flatten(0, 1).to(self._device)
        policy = torch.stack([response_logps(states, targets, layer) for layer in layers]).view(runs, 2, -1)
        known = {
            "reference_chosen_logps": self._data.logps[rows, 0],
            "reference_rejected_logps": self._data.logps[rows, 1],
        }
        inputs = {"policy_chosen_logps": policy[:, 0], "policy_rejected_logps": policy[:, 1]}
        for name, values in (known | self._extras(rows)).items():
            inputs[name] = values.to(self._device, torch.float32).expand(runs, -1)
        scalars = {"beta": list(self._plan.betas), "progress": [training_progress(step, self._plan.steps)] * runs}
        chosen, rejected = _log_ratios(inputs)
        if "running_log_ratio" in self._reads:
            scalars["running_log_ratio"] = self._running.update(torch.cat([chosen, rejected], 1))
        if "moving_margin" in self._reads:
            scalars["moving_margin"] = self._moving.update(chosen - rejected)
        return inputs, scalars

    def _extras(self, rows: Tensor) -> dict[str, Tensor]:
        """Those of the contract's optional tensors that the loss reads, (B,) each."""
        found, data = {}, self._data
        if "preference_probability" in self._reads:
            found["preference_probability"] = data.preferred[rows]
        for side, name in enumerate(("chosen", "rejected")):
            if f"{name}_length" in self._reads:
                found[f"{name}_length"] = (data.targets[rows, side] != PAD).sum(1).clamp(min=1)
            if f"{name}_score" in self._reads:
                found[f"{name}_score"] = data.rewards[rows, side]
        return found

    @staticmethod
    def changes(inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(R,) mean margin and (R,) mean log-ratio of the chosen response, on the CPU."""
        chosen, rejected = _log_ratios(inputs)
        return (chosen - rejected).mean(1).cpu(), chosen.mean(1).cpu()


def _log_ratios(inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """(R, B) log-ratios to the reference of the chosen and of the rejected responses."""
    return (
        inputs["policy_chosen_logps"].detach() - inputs["reference_chosen_logps"],
        inputs["policy_rejected_logps"].detach() - inputs["reference_rejected_logps"],
    )


def _require_a_survivor(alive: Tensor, step: int) -> None:
    if not bool(alive.any()):
        message = f"the loss, its gradient or the policy is no longer a number within {step} steps, at every beta"
        raise CandidateError(Failure(FailureKind.NON_FINITE, message))
