"""Reward-KL frontiers: the best reward that a set of trained policies reaches within a KL budget.

Any mixture of two policies is a policy, and its KL to the reference is at most the mixture of theirs (KL is convex), so
everything on or below the upper concave hull of the measured (KL, reward) points is attainable. The reference itself is
the point (0, 0): rewards are measured relative to it. A budget need not be spent, so the frontier never falls.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def upper_concave_hull(points: ArrayLike) -> NDArray[np.float64]:
    """Vertices of the upper concave hull of measured points and the reference's (0, 0), up to the highest reward.

    Args:
        points: (N, 2) pairs of KL (nats, >= 0) and reward relative to the reference; N may be 0.

    Returns:
        (M, 2) vertices, KL strictly increasing, rewards strictly increasing, slopes strictly decreasing; the first is
        (0, best reward at KL 0), which is (0, 0) unless a point at KL 0 has a positive reward.

    Raises:
        ValueError: wrong shape, a non-finite value, or a negative KL.
    """
    given = (
        np.asarray(points, dtype=np.float64).reshape(-1, 2) if np.size(points) == 0 else np.asarray(points, np.float64)
    )
    if given.ndim != 2 or given.shape[1] != 2:
        raise ValueError(f"points must have shape (N, 2), not {given.shape}")
    if not np.isfinite(given).all() or (given[:, 0] < 0).any():
        raise ValueError("points must be finite with KL >= 0")
    every = np.concatenate([np.zeros((1, 2)), given])
    every = every[np.lexsort((-every[:, 1], every[:, 0]))]  # by KL, at equal KL the highest reward first
    hull: list[NDArray[np.float64]] = []
    for point in every:
        if hull and point[1] <= hull[-1][1]:
            continue  # more KL for no more reward
        while len(hull) > 1 and _at_or_below(hull[-1], hull[-2], point):
            hull.pop()
        hull.append(point)
    return np.stack(hull)


def value_at(hull: NDArray[np.float64], x: ArrayLike) -> NDArray[np.float64]:
    """Height of a frontier at KL budgets `x` (any shape, >= 0): linear between vertices, level after the last."""
    return np.asarray(np.interp(np.asarray(x, dtype=np.float64), hull[:, 0], hull[:, 1]), dtype=np.float64)


def _at_or_below(middle: NDArray[np.float64], left: NDArray[np.float64], right: NDArray[np.float64]) -> bool:
    """Whether `middle` lies on or under the segment from `left` to `right`."""
    rise, run = right - left, middle - left
    return bool(run[1] * rise[0] <= rise[1] * run[0])
