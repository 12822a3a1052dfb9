"""Seeds that are added until something is decided: intervals that hold after every one of them.

Who looks after each seed and stops when the interval pleases is wrong far more often than an interval's 5%. Here the whole
sequence of intervals holds with 95% confidence, whenever and why ever one stops.

The seeds' differences x_1, x_2, ... are taken as independent N(m, s^2). Against m = 0, with s unknown, stands the mixture
over m ~ N(0, tau^2 s^2), and both under the right Haar prior 1/s of s. Their ratio after n seeds is, with nu = n - 1, t the
usual one-sample t and g = 1 + n tau^2,

    e_n = g^(-1/2) * ((1 + t^2 / nu) / (1 + t^2 / (nu g)))^((nu + 1) / 2).

It depends on the data through x_i / |x_1| alone, whose distribution does not depend on s; so under m = 0 it is a martingale
that starts at 1, and by Ville's inequality it ever reaches 1 / a with probability a at most. The interval holds every m
whose e_n is below 1 / a, which solves in closed form. Robbins (1970), Lai (1976), Wang and Ramdas (2023).

A seed's difference is the mean over its worlds: the worlds of a seed have different means, but seeds are alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from discovery.statistics import ERROR, Difference, Family, by_seed, estimate, pairs_of, verdict_of

SPREAD = 2.0  # tau: `python -m benchmarks.coverage` shows what it is for 5 to 20 seeds; smaller ones need more seeds
DECIDED = ("better", "worse", "within", "equal")


def log_e_value(values: Sequence[float], spread: float = SPREAD) -> float:
    """Natural logarithm of e_n, the evidence against a mean of 0, after values from independent seeds; 0 for a single one.

    Raises:
        ValueError: no value.
    """
    found = estimate(dict(enumerate(values)))
    n = found.n
    if n == 1 or not found.mean:
        return -0.5 * math.log1p(n * spread**2) if n > 1 else 0.0
    g, nu = 1 + n * spread**2, n - 1
    if not found.error:
        return nu / 2 * math.log(g)
    squared = (found.mean / found.error) ** 2
    return -0.5 * math.log(g) + n / 2 * (math.log1p(squared / nu) - math.log1p(squared / (nu * g)))


def reach(n: int, error: float = ERROR, spread: float = SPREAD) -> float:
    """How many standard errors the interval reaches to either side after n seeds; infinite while they are too few."""
    if n < 2:
        return math.inf
    g, nu = 1 + n * spread**2, n - 1
    bound = math.exp((math.log(g) - 2 * math.log(error)) / n)  # (g / error^2)^(1 / n)
    return math.sqrt(nu * (bound - 1) / (1 - bound / g)) if bound < g else math.inf


def fewest_seeds(error: float = ERROR, spread: float = SPREAD) -> int:
    """Seeds after which there is an interval for the first time."""
    return next(n for n in range(2, 10_000) if reach(n, error, spread) < math.inf)


def any_time_difference(
    a: Mapping[Any, float],
    b: Mapping[Any, float],
    higher_is_better: bool,
    minimum_effect: float,
    comparisons: int = 1,
) -> Difference:
    """Mean of `a - b` over common seeds, with an interval that holds after each seed at once.

    Args:
        a, b: one value per seed, or per (seed, world); seeds that lack a world count for nothing.
        higher_is_better: the metric's direction, for the verdict.
        minimum_effect: what counts as nothing, in the metric's unit, >= 0.
        comparisons: how many losses are compared in this way with the same one; each gets its share of the error.

    Raises:
        ValueError: no common key, a value that is not finite, or a negative minimum effect.
    """
    if minimum_effect < 0:
        raise ValueError("the minimum effect cannot be negative")
    values = list(by_seed(pairs_of(a, b)).values())
    found, family = estimate(dict(enumerate(values))), Family(comparisons, "any time", ERROR / comparisons)
    width = reach(found.n, family.error)
    p = min(1.0, comparisons * math.exp(-log_e_value(values)))
    if found.error is None or width == math.inf:
        verdict = verdict_of(-math.inf, math.inf, higher_is_better, minimum_effect)
        return Difference(found.mean, None, None, found.n, minimum_effect, verdict, family, p)
    ends = found.mean - width * found.error, found.mean + width * found.error
    verdict = verdict_of(*ends, higher_is_better, minimum_effect)
    return Difference(found.mean, *ends, found.n, minimum_effect, verdict, family, p)
