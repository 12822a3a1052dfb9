"""The physical limit: policies q ~ ref * exp(r / lambda), the best reward for their KL, one lambda for all prompts.

With t = 1 / lambda and V(t) the mean over prompts of the variance of r under q: d reward / dt = V and d KL / dt = t * V, so
both rise with t and the curve is concave with slope lambda.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluators.preference.enumerable.definition import GRID_POINTS

Floats = NDArray[np.float64]

_SHARPEST = 1e6  # t beyond which the policy is the best response of each prompt
_TABLE = 160
_ITERATIONS = 100
_TOLERANCE = 1e-3  # of t, relative, for the step that is left; the reward is then corrected to second order in it
_CHUNK = 16  # policies at a time: their tables stay in the cache


def standardise(rewards: Floats, logps: Floats) -> Floats:
    """Rewards (P, Y) shifted and scaled per prompt to mean 0 and deviation 1 under the policy with `logps` (P, Y)."""
    probs = np.exp(logps)
    probs = probs / probs.sum(-1, keepdims=True)
    centred = rewards - (probs * rewards).sum(-1, keepdims=True)
    return np.asarray(centred / np.sqrt((probs * centred**2).sum(-1, keepdims=True)))


def optimal_points(logps: Floats, rewards: Floats, sharpness: Floats) -> tuple[Floats, Floats, Floats]:
    """KL, reward and V (each (T,)) of the optimal policies at t = `sharpness` (T,), averaged over prompts."""
    best = rewards.max(-1, keepdims=True)
    lost = rewards - best  # a sharp policy loses next to nothing: no digits are lost to t * r or to r**2
    moments = np.stack([np.ones_like(lost), lost, lost**2], -1)  # (P, Y, 3)
    rows = [_points(logps, lost, moments, t) for t in np.split(sharpness, range(_CHUNK, sharpness.size, _CHUNK))]
    kl, reward, variance = np.concatenate(rows, 1)
    return kl, reward + best.mean(), variance


def _points(logps: Floats, rewards: Floats, moments: Floats, sharpness: Floats) -> Floats:
    weights = rewards[:, None] * sharpness[:, None]  # (P, T, Y)
    weights += logps[:, None]
    top = weights.max(-1, keepdims=True)
    weights -= top
    np.exp(weights, out=weights)
    sums = weights @ moments  # (P, T, 3)
    total, reward = sums[..., 0], sums[..., 1] / sums[..., 0]
    variance = sums[..., 2] / total - reward**2
    kl = sharpness * reward - (top[..., 0] + np.log(total))
    return np.stack([kl.mean(0), reward.mean(0), variance.mean(0)])


def optimal_rewards(logps: Floats, rewards: Floats, budgets: Floats) -> Floats:
    """Best reward at each KL budget (B,), averaged over prompts like the KL.

    Each budget's lambda is bracketed from a table; the bracket is halved wherever a Newton step would leave it. The result
    is that of plain bisection to 1e-9, however rare the best response. A budget that no lambda spends gets the mean of the
    best rewards.
    """
    table = np.concatenate([[0.0], np.geomspace(1e-3, _SHARPEST, _TABLE)])
    kl, reward, _ = optimal_points(logps, rewards, table)
    best = np.where(budgets >= kl[-1], reward[-1], 0.0)
    open_ = np.flatnonzero((budgets > 0) & (budgets < kl[-1]))
    right = np.searchsorted(kl, budgets[open_], side="left").clip(1, table.size - 1)
    low, high = table[right - 1], table[right]
    # between two entries KL is close to a power of t; below the first it goes as t squared
    share = np.log(budgets[open_] / kl[right]) / np.log(np.maximum(kl[right - 1], kl[1] * 1e-2) / kl[right])
    guess = high * (np.maximum(low, table[1] * 0.1) / high) ** share
    for _ in range(_ITERATIONS):
        if not open_.size:
            break
        kl_here, reward_here, variance = optimal_points(logps, rewards, guess)
        variance = np.maximum(variance, np.finfo(np.float64).tiny)  # 0 where every prompt has its one best response
        error = kl_here - budgets[open_]
        step = error / (guess * variance)
        # the curve's slope is lambda = 1 / t and its curvature -1 / (t^3 V)
        best[open_] = reward_here - error / guess * (1 + np.clip(step / guess, -_TOLERANCE, _TOLERANCE) / 2)
        low, high = np.where(error < 0, guess, low), np.where(error < 0, high, guess)
        newton = guess - step
        left = (np.abs(step) > _TOLERANCE * guess) & (high - low > 1e-15 * high)
        guess = np.where((newton > low) & (newton < high), newton, (low + high) / 2)
        open_, low, high, guess = open_[left], low[left], high[left], guess[left]
    return best


def optimal_areas(logps: Floats, rewards: Floats, budgets: tuple[float, ...]) -> dict[float, float]:
    """Area under the optimal rewards from KL 0 to each budget, by the trapezoid rule at GRID_POINTS points."""
    grids = [np.linspace(0, budget, GRID_POINTS) for budget in budgets]
    heights = np.split(optimal_rewards(logps, rewards, np.concatenate(grids)), len(budgets))
    return {b: float(np.trapezoid(h, g)) for b, h, g in zip(budgets, heights, grids, strict=True)}
