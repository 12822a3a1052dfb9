"""One pool of responses that every policy is scored on, by self-normalised importance weights of their beginnings.

Half of the responses are the SFT model's, half those of one fixed DPO policy; each counts as drawn from the even mixture of
both (the balance heuristic of Veach and Guibas 1995), so a weight is at most twice the smaller of the two ratios. All losses
meet the same responses: their differences have less of the noise of sampling in them.

What can be summed token by token, given the tokens before, is weighted by what led there alone (per-decision importance
sampling, Precup et al. 2000), and its mean over the next token is computed, not sampled: all of the KL, and of the reward
the part that `WordValues` knows. Only the rest of the reward, and the win rate, take the weights of whole responses (a
doubly robust estimate: Jiang and Li 2016, arXiv:1511.03722).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluators.preference.sentiment.steps import Responses, Steps


@dataclass(frozen=True)
class Pool:
    """N responses, K at a time to the same prompt: K / 2 of the SFT model's, then K / 2 of the fixed policy's.

    Attributes:
        responses: N of them.
        rewards: (N / K, K) float64.
        baselines: (N / K, K) float64: what the SFT model's reward is on the prompt, by its responses but this one.
        sft_logps, fixed_logps: (N, S) float64 log-probs of the tokens under the SFT model and under the fixed policy.
    """

    responses: Responses
    rewards: Tensor
    baselines: Tensor
    sft_logps: Tensor
    fixed_logps: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Everything as tensors, for storage."""
        r = self.responses
        return {
            "states": r.states,
            "targets": r.targets,
            "previous": r.previous,
            "rewards": self.rewards,
            "baselines": self.baselines,
            "sft_logps": self.sft_logps,
            "fixed_logps": self.fixed_logps,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Pool:
        """The inverse of `tensors`."""
        given = dict(tensors)
        responses = Responses(given.pop("states"), given.pop("targets"), given.pop("previous"))
        return cls(responses, **given)

    def thinned(self, step: int) -> Pool:
        """Every `step`-th prompt with its responses."""
        rows = torch.arange(self.rewards.numel()).view_as(self.rewards)[::step].flatten()
        return Pool(
            self.responses[rows],
            self.rewards[::step],
            self.baselines[::step],
            self.sft_logps[rows],
            self.fixed_logps[rows],
        )

    def gains(self) -> Tensor:
        """(N / K, K) rewards above the SFT model's on the same prompt."""
        return self.rewards - self.baselines

    def wins(self) -> Tensor:
        """(N / K, K) share of the other SFT responses to the same prompt that have a lower reward, ties half."""
        return mean_of_others(beats(self.rewards[:, :, None], self.sft_rewards()[:, None]))

    def sft_rewards(self) -> Tensor:
        """(N / K, K / 2) rewards of the SFT model's responses."""
        return self.rewards[:, : self.rewards.shape[1] // 2]

    def sft_responses(self) -> Responses:
        """Those of the SFT model, in the order of `sft_rewards`."""
        rows = torch.arange(self.rewards.numel()).view_as(self.rewards)
        return self.responses[rows[:, : rows.shape[1] // 2].flatten()]


def mean_of_others(found: Tensor) -> Tensor:
    """(N / K, K, K / 2) of each response and each SFT response to its prompt -> (N / K, K) means without itself.

    So what a response is compared with is independent of it, and weighting responses leaves no bias.
    """
    half = found.shape[2]
    other = torch.ones(2 * half, half, dtype=torch.float64)
    other[:half].fill_diagonal_(0.0)
    return (found * other).sum(2) / other.sum(1)


@dataclass(frozen=True)
class Estimate:
    """A mean over the responses.

    Attributes:
        parts: (N / K,) what each prompt adds to its error: prompts, and not their responses, are independent.
    """

    mean: float
    parts: Tensor

    @property
    def error(self) -> float:
        """Standard error."""
        count = len(self.parts)
        return float((self.parts.square().sum() * count / max(1, count - 1)).sqrt())


@dataclass(frozen=True)
class Weights:
    """Importance weights of one policy.

    Attributes:
        prefixes: (N, S + 1): entry t is the probability of a response's first t tokens under the policy over that under the
            mixture that it counts as drawn from, in units of the largest of its column, which no mean depends on; 1
            throughout for responses that the policy drew itself.
    """

    prefixes: Tensor

    @classmethod
    def of(cls, pool: Pool, logps: Tensor) -> Weights:
        """Of a policy that gives the tokens of the pool's responses these (N, S) log-probs."""
        policy, sft, fixed = (_beginnings(x) for x in (logps, pool.sft_logps, pool.fixed_logps))
        logs = policy - torch.logaddexp(sft, fixed)
        return cls((logs - logs.amax(0)).exp())

    @classmethod
    def own(cls, steps: Steps) -> Weights:
        """Of a policy on responses that it drew itself."""
        return cls(torch.ones(len(steps.logps), steps.logps.shape[1] + 1, dtype=torch.float64))

    @property
    def whole(self) -> Tensor:
        """(N,) weights of whole responses."""
        return self.prefixes[:, -1]

    def share(self) -> float:
        """Effective share of the responses, (sum w)^2 / (N sum w^2): 1 if all weights are equal, 1 / N if one has all.

        0 of weights that are no numbers.
        """
        share = float(self.whole.sum().square() / (self.whole.square().sum() * self.whole.numel()))
        return share if math.isfinite(share) else 0.0

    def kl(self, steps: Steps) -> float:
        """KL of the policy to the SFT model: never negative, as no token's is."""
        return float(self._sums(steps.divergence)[0])

    def gain(self, steps: Steps, drawn: Tensor, gains: Tensor) -> Estimate:
        """Mean of (N / K, K) `gains` under the policy; `drawn` are the words' values, (N, S)."""
        rest, parts = _mean(self.whole[:, None], gains.view(-1, 1) - drawn.sum(1, keepdim=True))
        expected, more = self._sums(steps.expected)
        return Estimate(float(rest + expected), (parts.sum(1) + more).view_as(gains).sum(1))

    def mean(self, values: Tensor) -> Estimate:
        """Mean of (N / K, K) values of whole responses under the policy."""
        mean, parts = _mean(self.whole[:, None], values.view(-1, 1))
        return Estimate(float(mean), parts.view_as(values).sum(1))

    def _sums(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over tokens of the means of (N, S) values, given what led there, and what each response adds to its error."""
        means, parts = _mean(self.prefixes[:, :-1], values)
        return means.sum(), parts.sum(1)


def _mean(weights: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """(T,) self-normalised means of (N, T) values, and (N, T) what each adds to the error of its mean."""
    total = weights.sum(0)
    mean = (weights * values).sum(0) / total
    return mean, weights * (values - mean) / total


def _beginnings(logps: Tensor) -> Tensor:
    """(N, S) log-probs of tokens -> (N, S + 1) of what comes before each, and of the whole."""
    return torch.cat([logps.new_zeros(len(logps), 1), logps.cumsum(1)], 1)


def beats(own: Tensor, other: Tensor) -> Tensor:
    """1 where a reward is higher than another, half where they are equal, else 0."""
    return (own > other).double() + 0.5 * (own == other).double()
