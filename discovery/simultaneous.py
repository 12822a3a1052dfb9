"""Many losses against one: intervals that hold all at once, so that the luckiest of fifty is not called better.

`max-T` (Westfall and Young 1993), from four seeds on. All differences are to the same baseline on the same seeds, so they
share noise, and what one of them happens to be says something about the others. The signs of the differences' residuals
(each from the mean of its world) are drawn at random, one sign for each (seed, world) *for all losses together*; so each
draw is a board on which no loss differs from the baseline and all of them depend on each other as they did. In every draw
each loss's t is computed anew, standard error included, and read as its own p-value under Student's t with its own degrees
of freedom; the smallest p-value of a draw is what the luckiest loss shows. The 5% quantile of those is what each interval
may miss. On the scale of p-values a loss with few degrees of freedom does not widen the intervals of all others.

Of more than `MOST` losses nobody waits for the dependence: Bonferroni.

`Holm` (1979), with fewer seeds or pairs than that: too few signs to tell. P-values are Holm's; intervals have the width of
Bonferroni's test, of which Holm's is a refinement. Intervals that agree with Holm's test exactly end at 0 for whatever it
finds to differ, and so do not say by how much (Strassburger and Bretz 2008); these do, and hold whatever the dependence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discovery.statistics import (
    ALONE,
    ERROR,
    STRATIFY_FROM,
    Difference,
    Estimate,
    Family,
    by_world,
    estimate,
    judged,
    world_of,
)

MOST = 2_000  # losses whose dependence is worked out, in a few seconds
DRAWS = 9_999  # sign patterns; the 5% quantile of so many is known to 0.4 points
FEWEST_PAIRS = 12  # 2,048 patterns; ten pairs have 512, too few for the tail of many losses
_CELLS = 300_000  # draws x losses at once: 2 MB an array, which a processor keeps near; more of it is slower
_EXACT = 14  # pairs up to which every pattern is taken once: 2^13, as a pattern and its mirror image give the same

Floats = NDArray[np.float64]


def differences(
    columns: Sequence[Mapping[Any, float]],
    higher_is_better: bool,
    minimum_effect: float,
    joint: bool = True,
    others: int = 0,
    draws: int = DRAWS,
) -> tuple[Difference, ...]:
    """The differences of several losses to one baseline, with intervals that hold simultaneously.

    Args:
        columns: for each loss its paired differences, by seed or by (seed, world). Where one lacks pairs that another has,
            it goes without them: each of its worlds counts alike with the pairs that it has.
        higher_is_better: the metric's direction.
        minimum_effect: what counts as nothing, >= 0.
        joint: whether max-T may be used; Holm otherwise.
        others: losses that were compared as well, too many to be given here.
        draws: sign patterns, where there are too many to take them all.

    Raises:
        ValueError: a column without pairs, or a negative minimum effect.
    """
    estimates = [estimate(column) for column in columns]
    family, p = _family(columns, estimates, joint, draws) if not others else _bonferroni(estimates, others)
    return tuple(judged(e, higher_is_better, minimum_effect, family, q) for e, q in zip(estimates, p, strict=True))


def family_of(columns: Sequence[Mapping[Any, float]], joint: bool = True, others: int = 0) -> Family:
    """What `differences` of the same arguments share: how wide the interval of one of them has to be.

    Raises:
        ValueError: a column without pairs.
    """
    if others or not columns:
        return _bonferroni([], len(columns) + others)[0]
    return _family(columns, [estimate(column) for column in columns], joint, DRAWS)[0]


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted by Holm's step-down method, in the given order."""
    adjusted, least = [0.0] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = least
    return adjusted


def _bonferroni(estimates: Sequence[Estimate], others: int) -> tuple[Family, list[float | None]]:
    size = len(estimates) + others
    p = [None if e.p is None else min(1.0, size * e.p) for e in estimates]
    return (Family(size, "Bonferroni", ERROR / size) if size > 1 else ALONE), p


def _family(
    columns: Sequence[Mapping[Any, float]], estimates: Sequence[Estimate], joint: bool, draws: int
) -> tuple[Family, list[float | None]]:
    """The family of all columns, and an adjusted p-value for each.

    Copies of one another are one comparison, and one whose pairs are all alike can have no luck: neither widens anything.
    """
    if len(columns) == 1:
        return ALONE, [estimates[0].p]
    copies = [tuple(sorted(column.items(), key=repr)) for column in columns]
    places = list({copy: place for place, copy in enumerate(copies) if estimates[place].error}.values())
    different, raw = [columns[place] for place in places], [float(estimates[place].p or 0.0) for place in places]
    if joint and _enough(different):
        least = least_p_values(different, draws)
        error = min(max(float(np.quantile(least, ERROR, method="lower")), ERROR / len(raw)), ERROR)
        family = Family(len(columns), "max-T", error, len(least))
        adjusted = [float(np.clip(np.mean(least <= q), q, min(1.0, len(raw) * q))) for q in raw]
    else:
        family, adjusted = Family(len(columns), "Holm", ERROR / max(1, len(raw))), holm(raw)
    of = dict(zip((copies[place] for place in places), adjusted, strict=True))
    return family, [of.get(copy, known.p) for copy, known in zip(copies, estimates, strict=True)]


def _enough(columns: Sequence[Mapping[Any, float]]) -> bool:
    fewest = min((len(world) for column in columns for world in by_world(column).values()), default=0)
    return fewest >= STRATIFY_FROM and min(map(len, columns)) >= FEWEST_PAIRS


def least_p_values(columns: Sequence[Mapping[Any, float]], draws: int = DRAWS) -> Floats:
    """The smallest p-value among all losses in each draw of signs.

    Args:
        columns: paired differences of each loss that are not all alike, at least two in every world that it has.
        draws: sign patterns, where there are too many to take them all.
    """
    keys = sorted({key for column in columns for key in column}, key=lambda key: (repr(world_of(key)), repr(key)))
    place = {key: row for row, key in enumerate(keys)}
    table = np.full((len(keys), len(columns)), np.nan)
    for number, column in enumerate(columns):
        table[[place[key] for key in column], number] = list(column.values())
    starts = [row for row, key in enumerate(keys) if not row or world_of(key) != world_of(keys[row - 1])]
    return _least(table.tobytes(), len(keys), tuple(pairwise([*starts, len(keys)])), draws)


@lru_cache(maxsize=8)  # a board is looked at more often than it changes
def _least(values: bytes, cells: int, ends: tuple[tuple[int, int], ...], draws: int) -> Floats:
    from scipy.special import stdtr

    table, worlds, signs = np.frombuffer(values).reshape(cells, -1), [slice(*e) for e in ends], _signs(cells, draws)
    least, width = np.ones(len(signs)), max(1, _CELLS // len(signs))
    for start in range(0, table.shape[1], width):
        squares, freedom = _squared_t(signs, table[:, start : start + width], worlds)
        # a deviate with nearly the same p-value, in order to find the smallest one of each draw (Wallace 1959)
        deviates = ((8 * freedom + 1) / (8 * freedom + 3)) ** 2 * freedom * np.log1p(squares / freedom)
        luckiest = deviates.argmax(1)
        t = np.sqrt(squares[np.arange(len(signs)), luckiest])
        np.minimum(least, 2 * stdtr(freedom[luckiest], -t), out=least)
    return least


def _squared_t(signs: Floats, table: Floats, worlds: Sequence[slice]) -> tuple[Floats, Floats]:
    """Squares of t by draw and loss, and the degrees of freedom of each loss."""
    sums, variances = (np.zeros((len(signs), table.shape[1])) for _ in range(2))
    observed, parts = (np.zeros(table.shape[1]) for _ in range(2))
    scale = np.nanmax(np.abs(table - np.nanmean(table, axis=0)), axis=0)
    for rows in worlds:
        there = ~np.isnan(table[rows])
        n = there.sum(0)
        inside = np.maximum(n, 2)  # a loss without this world adds nothing to either
        centre = np.where(there, table[rows], 0.0).sum(0) / np.maximum(n, 1)
        # the residual of a small sample is smaller than the error by this factor
        residuals = np.where(there, table[rows] - centre, 0.0) / scale * np.sqrt(inside / (inside - 1))
        total = (residuals**2).sum(0)
        sign_sum = signs[:, rows] @ residuals
        sums += sign_sum / inside
        variances += (total - sign_sum**2 / inside) / ((inside - 1) * inside)
        own = total / inside**2  # the variance of this world's mean
        observed += own
        parts += own**2 / (inside - 1)
    with np.errstate(divide="ignore"):  # all signs as those of the residuals: no spread is left, an infinite t
        squares = sums**2 / np.maximum(variances, 0.0)
    return squares, observed**2 / parts


def _signs(cells: int, draws: int) -> Floats:
    """One sign for each pair, by draw: every pattern if there are few, else the same random ones each time."""
    if cells <= _EXACT:
        patterns = np.arange(2 ** (cells - 1))[:, None] >> np.arange(cells) & 1
    else:
        patterns = np.random.default_rng(0).integers(0, 2, (draws, cells))
    return (patterns * 2 - 1).astype(np.float64)
