"""One pool of responses that every policy is scored on, by self-normalised importance weights.

Half of the responses are the SFT model's, half those of one fixed DPO policy; each counts as drawn from the even mixture of
both (the balance heuristic of Veach and Guibas 1995), so a weight is at most twice the smaller of the two ratios. All losses
meet the same responses: their differences have less of the noise of sampling in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from evaluators.preference.sentiment.sampling import policy_logps


@dataclass(frozen=True)
class Pool:
    """N responses, K at a time to the same prompt: K / 2 of the SFT model's, then K / 2 of the fixed policy's.

    Attributes:
        states: (N, S, D) final hidden states of the transformer, which no policy changes.
        targets: (N, S) response tokens.
        rewards: (N / K, K) float64.
        sft_logps, fixed_logps: (N / K, K) float64 log-probs under the SFT model and under the fixed policy.
    """

    states: Tensor
    targets: Tensor
    rewards: Tensor
    sft_logps: Tensor
    fixed_logps: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Everything as tensors, for storage."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def thinned(self, step: int) -> Pool:
        """Every `step`-th prompt with its responses."""
        each = self.rewards.shape[1]
        rows = torch.arange(len(self.states)).view(-1, each)[::step].flatten()
        return Pool(
            self.states[rows],
            self.targets[rows],
            self.rewards[::step],
            self.sft_logps[::step],
            self.fixed_logps[::step],
        )

    def logps(self, layer: Tensor) -> Tensor:
        """(N / K, K) float64 log-probs of the responses under a policy's output layer."""
        return policy_logps(self.states, self.targets, layer).view_as(self.rewards)

    def gains(self) -> Tensor:
        """(N / K, K) reward minus the mean reward of the other SFT responses to the same prompt.

        "Other" keeps the baseline independent of the response, so that weighting responses leaves no bias.
        """
        return self.rewards - self._against(lambda sft, _: sft)

    def wins(self) -> Tensor:
        """(N / K, K) share of the other SFT responses to the same prompt that have a lower reward, ties half."""
        return self._against(lambda sft, own: beats(own, sft))

    def sft_rewards(self) -> Tensor:
        """(N / K, K / 2) rewards of the SFT model's responses."""
        return self.rewards[:, : self.rewards.shape[1] // 2]

    def _against(self, compare: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """(N / K, K) mean of what `compare` gives for each response and each SFT response to its prompt but itself."""
        half = self.rewards.shape[1] // 2
        found = compare(self.sft_rewards()[:, None], self.rewards[:, :, None]).expand(-1, 2 * half, half)
        other = torch.ones(2 * half, half, dtype=torch.float64)
        other[:half].fill_diagonal_(0.0)
        return (found * other).sum(2) / other.sum(1)


@dataclass(frozen=True)
class Weights:
    """Importance weights of one policy.

    Attributes:
        policy, sft: (N / K, K) probability of each response under the policy, and under the SFT model, over that under the
            mixture that it counts as drawn from.
        log_ratio: (N / K, K) log-prob under the policy minus under the SFT model.
    """

    policy: Tensor
    sft: Tensor
    log_ratio: Tensor

    @classmethod
    def of(cls, pool: Pool, logps: Tensor) -> Weights:
        """Of a policy that gives the pool's responses these log-probs."""
        mixture = torch.logaddexp(pool.sft_logps, pool.fixed_logps) - math.log(2)
        return cls((logps - mixture).exp(), (pool.sft_logps - mixture).exp(), logps - pool.sft_logps)

    def share(self) -> float:
        """Effective share of the pool, (sum w)^2 / (N sum w^2): 1 if all weights are equal, 1 / N if one has everything."""
        scaled = self.policy / self.policy.max().clamp_min(1e-300)
        return float(scaled.sum().square() / (scaled.square().sum() * scaled.numel()))

    def kl(self) -> float:
        """KL of the policy to the SFT model: the mean of w log(p / q) - w + u, with w and u its and the SFT model's weights.

        Both weights have mean 1, so the last two terms add nothing but take variance away; no response counts below 0.
        """
        return float((self.policy * self.log_ratio - self.policy + self.sft).mean())

    def mean(self, values: Tensor) -> tuple[float, float]:
        """Self-normalised mean of (N / K, K) values under the policy, and its standard error over prompts."""
        total = self.policy.sum()
        mean = (self.policy * values).sum() / total
        residuals = (self.policy * (values - mean)).sum(1) / total
        count = len(residuals)
        return float(mean), float((residuals.square().sum() * count / max(1, count - 1)).sqrt())


def beats(own: Tensor, other: Tensor) -> Tensor:
    """1 where a reward is higher than another, half where they are equal, else 0."""
    return (own > other).double() + 0.5 * (own == other).double()
