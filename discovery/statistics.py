"""Is one loss better than another? One paired difference with its Student-t interval, and what an interval says in a word.

Losses are compared on the same seeds, so what a seed makes easy or hard for all of them cancels in the difference. Values
are keyed by seed, or finer by `(seed, world)` for evaluators whose trial spans several worlds. Worlds are fixed regimes
that are drawn independently of each other, so they are strata: the mean over W worlds has the variance
sum_w s_w^2 / n_w / W^2, and Welch and Satterthwaite give its degrees of freedom. Under `STRATIFY_FROM` pairs a world there
are too few to know each world's own variance; then all pairs are one sample, whose spread also holds the differences
between worlds, and the interval errs towards too wide.

Several differences that are looked at together: `simultaneous.py`. Seeds that are added until something is decided:
`anytime.py`. docs/statistics.md states every method with its source and what it assumes.

What no interval here knows: that a loss was proposed because earlier ones did well on these very seeds (measure winners
again on fresh ones), and what another task would say.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["better", "ahead", "equal", "within", "not separated", "behind", "worse", "one pair"]
Method = Literal["alone", "max-T", "Holm", "Bonferroni", "any time"]

Limits = tuple[float, float]  # what a metric can be at least and at most

ERROR = 0.05  # what all intervals of a family may miss together
STRATIFY_FROM = 4  # pairs in each world from which worlds have variances of their own
UNLIMITED: Limits = (-math.inf, math.inf)


# Where the interval of a difference lies, turned so that above 0 is better, from the better end to the worse one. Each
# difference has exactly one of these; "better" and "worse" are said of nothing else.
MEANINGS: Mapping[Verdict, str] = {
    "better": "all on that side, beyond the minimum effect",
    "ahead": "all on that side of 0, part of it inside the minimum effect",
    "equal": "at 0, no pair differs",
    "within": "all inside the minimum effect",
    "not separated": "around 0 and beyond the minimum effect",
    "behind": "all on that side of 0, part of it inside the minimum effect",
    "worse": "all on that side, beyond the minimum effect",
    "one pair": "nowhere, one pair has none",
}


@dataclass(frozen=True)
class Family:
    """The differences whose intervals hold the truth all at once with 95% confidence.

    Attributes:
        size: how many they are; 1 for an interval that speaks for itself alone.
        method: how they were made to hold together.
        error: what each of the intervals may miss by itself, at most `ERROR`.
        draws: sign patterns behind `max-T`, 0 for the other methods.
    """

    size: int = 1
    method: Method = "alone"
    error: float = ERROR
    draws: int = 0

    @property
    def says(self) -> str:
        """The confidence as it is shown: ``95%``, ``95% simultaneous`` where it is that of several, ``95% at any time``."""
        if self.method == "any time":
            return "95% at any time"
        return "95% simultaneous" if self.size > 1 else "95%"

    @property
    def sentence(self) -> str:
        """The same within a sentence: ``95% intervals``, or ``95% intervals that hold for 12 losses at once``."""
        at_once = f" that hold for {self.size} losses at once" if self.size > 1 else ""
        return f"95% intervals{at_once}{' and at any time' if self.method == 'any time' else ''}"


ALONE = Family()


@dataclass(frozen=True)
class Difference:
    """`a` minus `b` in the metric's own unit (not turned by its direction).

    Attributes:
        mean: mean paired difference.
        low, high: ends of the interval; None where there is none: a single pair has no spread to judge by, and an interval
            that holds at any time begins with a few seeds.
        n: paired values behind it.
        minimum_effect: what counts as nothing.
        verdict: from `a`'s point of view, one of `MEANINGS`.
        family: the differences together with which the interval holds.
        p: two-sided p-value of no difference at all, adjusted for the family; None without one.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    minimum_effect: float
    verdict: Verdict
    family: Family = ALONE
    p: float | None = None

    @property
    def says(self) -> str:
        """The verdict as it is shown: ``within 0.005`` names what it is within."""
        return f"within {self.minimum_effect:g}" if self.verdict == "within" else self.verdict


@dataclass(frozen=True)
class Estimate:
    """A mean of values with what is known about its error.

    Attributes:
        mean: of the worlds' means where they are strata, else of all values.
        error: standard error; None for a single value.
        freedom: degrees of freedom of that standard error.
        n: values behind it.
    """

    mean: float
    error: float | None
    freedom: float
    n: int

    def interval(self, error: float = ERROR) -> tuple[float, float] | None:
        """Ends of the Student-t interval that misses the truth in a share `error` of cases; None for a single value."""
        if self.error is None:
            return None
        half = t_quantile(self.freedom, error) * self.error if self.error else 0.0
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float | None:
        """Two-sided p-value of the mean being 0, not adjusted for anything; None for a single value."""
        if self.error is None:
            return None
        if not self.error:
            return float(not self.mean)
        from scipy.special import stdtr  # a tenth of the import time of scipy.stats

        return float(2 * stdtr(self.freedom, -abs(self.mean) / self.error))


def pairs_of(a: Mapping[Any, float], b: Mapping[Any, float]) -> dict[Any, float]:
    """`a - b` at the keys that both have.

    Raises:
        ValueError: no common key, or a difference that is not finite.
    """
    found = {key: a[key] - b[key] for key in sorted(a.keys() & b.keys(), key=_order)}
    odd = next((key for key, value in found.items() if not math.isfinite(value)), None)
    if odd is not None:
        raise ValueError(f"the values at {odd!r} are not finite")
    if not found:
        raise ValueError("nothing to pair: no common seed")
    return found


def estimate(values: Mapping[Any, float], stratify_from: int = STRATIFY_FROM) -> Estimate:
    """Mean and standard error of values by seed, or by (seed, world).

    From `stratify_from` values in every world on, worlds are strata of equal weight, whether or not they hold as many
    values. Below that, every value counts once and alike.

    Raises:
        ValueError: no value.
    """
    worlds = list(by_world(values).values())
    if min(map(len, worlds)) >= max(2, stratify_from):
        return _stratified(worlds)
    return _stratified([list(values.values())])


def world_of(key: Hashable) -> Hashable:
    """The world of a key `(seed, world)`; None for a key that is a seed."""
    return key[1] if isinstance(key, tuple) else None


def by_world(values: Mapping[Any, float]) -> dict[Hashable, list[float]]:
    """The values in each world; all of them in one for values by seed."""
    found: dict[Hashable, list[float]] = {}
    for key, value in values.items():
        found.setdefault(world_of(key), []).append(value)
    return found


def by_seed(values: Mapping[Any, float]) -> dict[Hashable, float]:
    """The mean over the worlds of each seed that has as many of them as any other seed; values by seed as they are."""
    found: dict[Hashable, list[float]] = {}
    for key, value in values.items():
        found.setdefault(key[0] if isinstance(key, tuple) else key, []).append(value)
    most = max(map(len, found.values()), default=0)
    return {seed: math.fsum(v) / len(v) for seed, v in found.items() if len(v) == most}


def paired_difference(
    a: Mapping[Any, float],
    b: Mapping[Any, float],
    higher_is_better: bool,
    minimum_effect: float,
    family: Family = ALONE,
) -> Difference:
    """Mean of `a - b` over the keys that both have, with its Student-t interval.

    Args:
        a, b: one value per seed, or per (seed, world).
        higher_is_better: the metric's direction, for the verdict.
        minimum_effect: differences up to this size are nothing, in the metric's unit, >= 0.
        family: the differences together with which the interval is to hold; by itself if none is given.

    Raises:
        ValueError: no common key, a value that is not finite, or a negative minimum effect.
    """
    found = estimate(pairs_of(a, b))
    p = found.p if family.method == "alone" else None
    return judged(found, higher_is_better, minimum_effect, family, p)


def judged(
    found: Estimate, higher_is_better: bool, minimum_effect: float, family: Family = ALONE, p: float | None = None
) -> Difference:
    """An estimated difference with the interval that its family leaves it, and the verdict.

    Raises:
        ValueError: a negative minimum effect.
    """
    if minimum_effect < 0:
        raise ValueError("the minimum effect cannot be negative")
    ends = found.interval(family.error)
    if ends is None:
        return Difference(found.mean, None, None, found.n, minimum_effect, "one pair", family)
    verdict = verdict_of(*ends, higher_is_better, minimum_effect)
    return Difference(found.mean, *ends, found.n, minimum_effect, verdict, family, p)


def mean_interval(values: Mapping[Any, float], limits: Limits = UNLIMITED) -> Difference:
    """A mean over seeds with its 95% interval: the difference to nothing, whose verdict says nothing.

    By seed and world, worlds are strata from two seeds on: two seeds of six worlds say more than two numbers do, between
    n - 1 and W (n - 1) degrees of freedom. Here the values themselves are compared with nothing, so that one sample of
    all worlds, which differ widely, would say nothing at all.

    Args:
        values: one per seed, or per (seed, world).
        limits: what no value can be below or above. The interval is cut to them: it is of a mean of such values.
    """
    seeds = by_seed(values)
    worlds = by_world(values)
    complete = len({len(v) for v in worlds.values()}) == 1 and len(seeds) > 1
    whole = estimate(values, 2) if complete else estimate(seeds)
    found = judged(Estimate(whole.mean, whole.error, whole.freedom, len(seeds)), True, 0.0)
    if found.low is None or found.high is None:
        return found
    low = max(found.low, min(limits[0], found.mean))
    high = min(found.high, max(limits[1], found.mean))
    return Difference(found.mean, low, high, found.n, 0.0, verdict_of(low, high, True, 0.0))


def _stratified(worlds: Collection[list[float]]) -> Estimate:
    """The mean of the worlds' means. fsum is exact, so that the order of values cannot change the last bit."""
    means, variances = [], []
    for values in worlds:
        n, mean = len(values), math.fsum(values) / len(values)
        means.append(mean)
        variances.append(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n if n > 1 else math.nan)
    count, mean, total = sum(map(len, worlds)), math.fsum(means) / len(means), math.fsum(variances)
    if math.isnan(total):
        return Estimate(mean, None, 0.0, count)
    if not total:
        return Estimate(mean, 0.0, math.fsum(len(w) - 1 for w in worlds), count)
    freedom = 1 / math.fsum((v / total) ** 2 / (len(w) - 1) for v, w in zip(variances, worlds, strict=True))
    return Estimate(mean, math.sqrt(total) / len(worlds), freedom, count)


def t_quantile(freedom: float, error: float = ERROR) -> float:
    """What Student's t of so many degrees of freedom exceeds on either side in a share `error` of cases."""
    from scipy.special import stdtrit

    return float(-stdtrit(freedom, error / 2))


def verdict_of(low: float, high: float, higher_is_better: bool, effect: float) -> Verdict:
    """Where an interval lies."""
    least, most = (low, high) if higher_is_better else (-high, -low)
    cases: tuple[tuple[bool, Verdict], ...] = (
        (least == most == 0, "equal"),
        (least > effect, "better"),
        (most < -effect, "worse"),
        (-effect <= least and most <= effect, "within"),
        (least > 0, "ahead"),
        (most < 0, "behind"),
    )
    return next((verdict for holds, verdict in cases if holds), "not separated")


def _order(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)
