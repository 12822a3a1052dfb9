"""A policy's change scaled to a KL budget, its reward there, and the best over betas.

Training fixes a direction; how far along it a policy went is the doing of the learning rate and the number of steps. Every
policy is therefore measured at one and the same KL: its output layer is W0 + t (W - W0), with t such that the KL is the
budget. The logits of such a policy are interpolated between the SFT model's and the trained policy's (Liu et al. 2024,
arXiv:2402.02992), or extrapolated where training stopped short.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from evaluators.preference.sentiment.model import LanguageModel
from evaluators.preference.sentiment.pool import Pool, Weights, beats
from evaluators.preference.sentiment.reward import SentimentReward
from evaluators.preference.sentiment.sampling import generator, sample
from evaluators.preference.sentiment.steps import Responses, Steps, WordValues, steps_of

_THINNED = 8  # the search begins on every so manieth prompt of the pool
_CLOSER = 0.02  # relative distance to the budget at which it ends there
_NEAR = 0.05  # and on the whole pool
ACCEPTED = 0.1  # and up to which the weights are believed, and a policy counts
_TRIES = 12
_FARTHEST = 2.0**20  # t; a change that has no KL there is no change
_BONUS = 0.01  # of the highest gain, at most, for lying between two betas: a low neighbour must not pay

Floats = NDArray[np.float64]
Factors = dict[int, float]  # of policies, by their number


@dataclass(frozen=True)
class Measured:
    """A policy near the KL budget, by weights or by sampling. Errors are standard errors over prompts.

    Attributes:
        kl: nats to the SFT model.
        gain, gain_error: reward above the SFT model's on the same prompts.
        win, win_error: how often a response beats an SFT response to the same prompt, ties half.
        share: effective share of the pool; NaN by sampling.
    """

    kl: float
    gain: float
    gain_error: float
    win: float
    win_error: float
    share: float = math.nan


@dataclass(frozen=True)
class Placed:
    """A policy scaled to the KL budget.

    Attributes:
        factor: by how much its change was scaled; 0 for a policy that did not change.
        used: what counts: by weights, or by sampling where the weights were refused.
        share: effective share of the pool, also of weights that were refused.
        refused: whether the weights were.
        sampled: the same policy by responses of its own.
    """

    factor: float
    used: Measured
    share: float
    refused: bool
    sampled: Measured


Measure = Callable[[Factors], dict[int, Measured]]


@dataclass(frozen=True)
class Scorer:
    """What policies are measured with.

    Attributes:
        sft: the SFT model, on the device.
        pool: responses that all policies are weighed on.
        reward: of a response.
        budget: nats of KL.
        smallest_share: effective share of the pool below which weights are refused.
        samples: responses that a policy draws itself, one to a prompt.
        prompts: (N, P) held-out prompts, as in the pool.
    """

    sft: LanguageModel
    pool: Pool
    reward: SentimentReward
    budget: float
    smallest_share: float
    samples: int
    prompts: Tensor

    def place(self, layers: Tensor, alive: Sequence[bool], seed: int) -> list[Placed | None]:
        """Scale the changes of (R, outputs, D + 1) output layers until the KL is the budget, and measure the policies there.

        None for those that are not alive.
        """
        changes = layers - self.sft.output_layer
        moved = [p for p, change in enumerate(changes) if alive[p] and bool(change.any())]

        def weighed(pool: Pool) -> Measure:
            return lambda factors: self._weighed(pool, {p: factor * changes[p] for p, factor in factors.items()})

        def sampled(factors: Factors) -> dict[int, Measured]:
            return {p: self._sampled(factor * changes[p], seed) for p, factor in factors.items()}

        begun, _ = self._search(weighed(self.pool.thinned(_THINNED)), dict.fromkeys(moved, 1.0), _CLOSER)
        factors, found = self._search(weighed(self.pool), begun, _NEAR)
        refused = {p for p in moved if self._refused(found[p])}
        factors |= self._search(sampled, dict.fromkeys(refused, 1.0), _NEAR)[0]
        still = {p: 0.0 for p in range(len(layers)) if alive[p] and p not in moved}
        found |= weighed(self.pool)(still) if still else {}
        own = sampled(factors | still)
        placed = {
            p: Placed(factor, own[p] if p in refused else found[p], found[p].share, p in refused, own[p])
            for p, factor in (factors | still).items()
        }
        return [placed.get(p) for p in range(len(layers))]

    def _refused(self, found: Measured) -> bool:
        """Whether weights are not believed."""
        return found.share < self.smallest_share or not self._within(found, ACCEPTED)

    def _within(self, found: Measured, distance: float) -> bool:
        """Whether a KL is near the budget; one that is no number is not."""
        return abs(found.kl / self.budget - 1) < distance

    def _search(self, measure: Measure, factors: Factors, near: float) -> tuple[Factors, dict[int, Measured]]:
        """Factors at which policies have the budget, or the last that were tried, and what was measured there."""
        tried, found, unsettled = dict(factors), dict[int, Measured](), set(factors)
        low, high = dict.fromkeys(factors, 0.0), dict.fromkeys(factors, math.inf)
        for last in range(_TRIES, 0, -1):
            found |= measure({p: tried[p] for p in sorted(unsettled)})
            unsettled = {p for p in unsettled if not (self._within(found[p], near) or tried[p] >= _FARTHEST)}
            if last == 1 or not unsettled:
                break
            for p in unsettled:
                side = low if found[p].kl < self.budget else high
                side[p] = tried[p]
                tried[p] = self._next(tried[p], found[p].kl, low[p], high[p])
        return tried, found

    def _next(self, factor: float, kl: float, low: float, high: float) -> float:
        """KL grows with about the square of the factor; what is known to be too little or too much bounds the next try.

        A KL that is no number, as logits were too large, is too much.
        """
        ratio = self.budget / max(kl, 1e-9) if math.isfinite(kl) else 0.0
        factor *= math.sqrt(min(max(ratio, 1 / 16), 256.0))
        return min(factor if low < factor < high else (low + high) / 2, _FARTHEST)

    def _weighed(self, pool: Pool, changes: Mapping[int, Tensor]) -> dict[int, Measured]:
        """By weights."""
        every = steps_of(pool.responses, self.sft.output_layer, list(changes.values()), self._values)
        return {
            p: self._measured(Weights.of(pool, steps.logps), steps, pool.responses, pool.gains(), pool.wins())
            for p, steps in zip(changes, every, strict=True)
        }

    def _sampled(self, change: Tensor, seed: int) -> Measured:
        """By one response to each of the first prompts of the pool. The noise is a function of the seed alone."""
        prompts, start = self.prompts[: self.samples], self.sft.output_layer
        length = self.sft.size.context - prompts.shape[1]
        drawn = sample(self.sft, prompts, generator(seed, "evaluation"), length, start + change)
        responses = Responses.drawn(drawn)
        steps = steps_of(responses, start, [change], self._values)[0]
        rewards, sft = self.reward(drawn.tokens)[:, None], self.pool.sft_rewards()[: self.samples]
        gains = rewards - self.pool.baselines[: self.samples, -1:]  # by all SFT responses
        wins = beats(rewards, sft).mean(1, keepdim=True)
        return replace(self._measured(Weights.own(steps), steps, responses, gains, wins), share=math.nan)

    def _measured(self, weights: Weights, steps: Steps, responses: Responses, gains: Tensor, wins: Tensor) -> Measured:
        gain, win = weights.gain(steps, self._values.drawn(responses), gains), weights.mean(wins)
        return Measured(weights.kl(steps), gain.mean, gain.error, win.mean, win.error, weights.share())

    @cached_property
    def _values(self) -> WordValues:
        return WordValues.fitted(self.reward, self.pool.sft_responses(), self.pool.sft_rewards().flatten())


def height_at(budget: float, kl: float, gain: float) -> float:
    """Gain at the budget of a policy measured close to it: gains grow with about the root of KL.

    One that could not be brought there has none, also where its readings are no numbers.
    """
    return gain * math.sqrt(budget / kl) if abs(kl / budget - 1) < ACCEPTED else 0.0


def best_over_betas(betas: Sequence[float], heights: Floats) -> float:
    """Top of the parabola in log beta through the highest point and its neighbours; the SFT model's 0 is always at hand.

    It is at most a hundredth above the highest point. Without two neighbours that were measured it is that point itself. NaN
    marks what was not measured.
    """
    best = int(np.nanargmax(heights))
    around = heights[max(best - 1, 0) : best + 2]
    if len(around) < 3 or not np.isfinite(around).all():
        return max(0.0, float(heights[best]))
    x, y = np.log(np.asarray(betas[best - 1 : best + 2])), around
    left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    bend = (right - left) / (x[2] - x[0])  # at most 0: the middle one is highest
    slope = left + bend * (x[1] - x[0])  # at the middle one
    bonus = -(slope**2) / (4 * bend) if bend < 0 else 0.0
    return max(0.0, float(y[1] + min(bonus, _BONUS * abs(y[1]))))
