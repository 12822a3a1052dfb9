"""A policy's change scaled to a KL budget, its reward there, and the best over betas.

Training fixes a direction; how far along it a policy went is the doing of the learning rate and the number of steps. Every
policy is therefore measured at one and the same KL: its output layer is W0 + t (W - W0), with t such that the KL is the
budget. The logits of such a policy are interpolated between the SFT model's and the trained policy's (Liu et al. 2024,
arXiv:2402.02992), or extrapolated where training stopped short.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from evaluators.preference.sentiment.model import LanguageModel
from evaluators.preference.sentiment.pool import Pool, Weights, beats
from evaluators.preference.sentiment.reward import SentimentReward
from evaluators.preference.sentiment.sampling import divergence, generator, sample

_THINNED = 8  # the search begins on every so manieth prompt of the pool
_NEAR = 0.03  # relative distance to the budget at which it ends
_ACCEPTED = 0.1  # and up to which the weights are believed
_TRIES = 12
_FARTHEST = 2.0**20  # t; a change that has no KL there is no change

Floats = NDArray[np.float64]


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

    def place(self, layer: Tensor, seed: int) -> Placed:
        """Scale the change of an output layer until the KL is the budget, and measure the policy there."""
        start = self.sft.output_layer
        change = layer - start
        if not bool(change.any()):
            return self._placed(0.0, self._weighed(self.pool, start), False, start, seed)

        def weighed(pool: Pool) -> Callable[[float], Measured]:
            return lambda factor: self._weighed(pool, start + factor * change)

        first = self._search(weighed(self.pool.thinned(_THINNED)), 1.0)[0]
        factor, found = self._search(weighed(self.pool), first)
        refused = not abs(found.kl / self.budget - 1) < _ACCEPTED
        if refused:
            factor, _ = self._search(lambda t: self._sampled(start + t * change, seed), 1.0)
        return self._placed(factor, found, refused, start + factor * change, seed)

    def _placed(self, factor: float, found: Measured, refused: bool, layer: Tensor, seed: int) -> Placed:
        sampled = self._sampled(layer, seed)
        return Placed(factor, sampled if refused else found, found.share, refused, sampled)

    def _search(self, measure: Callable[[float], Measured], factor: float) -> tuple[float, Measured]:
        """KL grows with about the square of the factor; what is known to be too little or too much bounds the next try."""
        low, high = 0.0, math.inf
        for _ in range(_TRIES):
            found = measure(factor)
            if abs(found.kl / self.budget - 1) < _NEAR or factor >= _FARTHEST:
                break
            low, high = (factor, high) if found.kl < self.budget else (low, factor)
            factor *= math.sqrt(min(max(self.budget / max(found.kl, 1e-9), 1 / 16), 256.0))
            if not low < factor < high:
                factor = (low + high) / 2
            factor = min(factor, _FARTHEST)
        return factor, found

    def _weighed(self, pool: Pool, layer: Tensor) -> Measured:
        """By weights. Where they cannot be believed, the KL is infinite: the policy is too far from the pool."""
        weights = Weights.of(pool, pool.logps(layer))
        share = weights.share()
        (gain, gain_error), (win, win_error) = weights.mean(pool.gains()), weights.mean(pool.wins())
        kl = weights.kl() if share >= self.smallest_share else math.inf
        return Measured(kl, gain, gain_error, win, win_error, share)

    def _sampled(self, layer: Tensor, seed: int) -> Measured:
        """By one response to each of the first prompts of the pool. The noise is a function of the seed alone."""
        prompts = self.prompts[: self.samples]
        begin = prompts.shape[1]
        tokens, _ = sample(self.sft, prompts, generator(seed, "evaluation"), self.sft.size.context - begin, layer)
        rewards, sft = self.reward(tokens), self.pool.sft_rewards()[: self.samples]
        gains, wins = rewards - sft.mean(1), beats(rewards[:, None], sft).mean(1)
        kl = float(divergence(self.sft, layer, tokens, begin).mean())
        return Measured(kl, float(gains.mean()), _error(gains), float(wins.mean()), _error(wins))


def _error(values: Tensor) -> float:
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else 0.0


def height_at(budget: float, kl: float, gain: float) -> float:
    """Gain at the budget of a policy measured close to it, NaN of NaN: gains grow with about the root of KL."""
    return 0.0 if kl <= 0 else gain * math.sqrt(budget / kl)


def best_over_betas(betas: Sequence[float], heights: Floats) -> float:
    """Top of the parabola in log beta through the highest point and its neighbours; the SFT model's 0 is always at hand.

    Without two neighbours that were measured it is the highest point itself. NaN marks what was not measured.
    """
    best = int(np.nanargmax(heights))
    around = heights[max(best - 1, 0) : best + 2]
    if len(around) < 3 or not np.isfinite(around).all():
        return max(0.0, float(heights[best]))
    x, y = np.log(np.asarray(betas[best - 1 : best + 2])), around
    left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    bend = (right - left) / (x[2] - x[0])  # at most 0: the middle one is highest
    slope = left + bend * (x[1] - x[0])  # at the middle one
    return max(0.0, float(y[1] - (slope**2 / (4 * bend) if bend < 0 else 0.0)))
