"""Is one loss better than another? Paired differences with Student-t intervals, and the leaderboard made of them.

Losses are compared on the same seeds, so what a seed makes easy or hard for all of them cancels in the difference.

The unit. Values may be keyed by seed, or finer by `(seed, world)` for evaluators whose trial spans several worlds, and
each key counts as one paired difference. Worlds are different regimes, each drawn independently from the seed, so
differences are independent but not alike: their spread holds the noise of a draw *and* the differences between
regimes. The usual variance estimate of the mean then errs upwards (for independent d_i with means m_i, s^2/n has the
expectation Var(mean) plus the sample variance of the m_i over n), so the interval for the mean over these regimes is
too wide rather than too narrow. Where the values under one seed share randomness (one data set, one reward), that
argument fails and the seed is the unit: pass `unit=seed_of`, which averages within each seed first.

What an interval does not know: that the loss was picked because it did well on these very seeds (measure winners again on
fresh ones), how many losses were compared, and what another task would say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from db.records import Entry
from discovery.contest import opponent_of

Verdict = Literal["better", "ahead", "equal", "within", "not separated", "behind", "worse", "one pair"]

Limits = tuple[float, float]  # what a metric can be at least and at most

CONFIDENCE = 0.95
UNLIMITED: Limits = (-math.inf, math.inf)
MINIMUM_EFFECTS: Mapping[str, float] = {"frontier": 0.005}  # a rescaled DPO can be "significantly" 0.001 better


# Where the 95% interval of a difference lies, turned so that above 0 is better, from the better end to the worse one. Each
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


def minimum_effect(metric: str) -> float:
    """The smallest difference worth a verdict: 0.005 for `frontier`, 0 for metrics without a known scale."""
    return MINIMUM_EFFECTS.get(metric, 0.0)


def seed_of(key: Hashable) -> Hashable:
    """The seed of a key `seed` or `(seed, world)`."""
    return key[0] if isinstance(key, tuple) else key


def each(key: Hashable) -> Hashable:
    """Every key is a unit of its own."""
    return key


@dataclass(frozen=True)
class Difference:
    """`a` minus `b` in the metric's own unit (not turned by its direction).

    Attributes:
        mean: mean paired difference.
        low, high: ends of the 95% interval; None with a single pair, which has no spread to judge by.
        n: paired units behind it.
        minimum_effect: what counts as nothing.
        verdict: from `a`'s point of view, one of `MEANINGS`.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    minimum_effect: float
    verdict: Verdict

    @property
    def says(self) -> str:
        """The verdict as it is shown: ``within 0.005`` names what it is within."""
        return f"within {self.minimum_effect:g}" if self.verdict == "within" else self.verdict


def paired_difference(
    a: Mapping[Any, float],
    b: Mapping[Any, float],
    higher_is_better: bool,
    minimum_effect: float = 0.005,
    unit: Callable[[Hashable], Hashable] = each,
) -> Difference:
    """Mean and 95% Student-t interval of `a - b` over the keys that both have.

    Args:
        a, b: one value per seed, or per (seed, world).
        higher_is_better: the metric's direction, for the verdict.
        minimum_effect: differences up to this size are nothing, in the metric's unit, >= 0.
        unit: maps a key to the independent unit; differences are averaged within it first, each unit counts once.

    Raises:
        ValueError: no common key, a value that is not finite, or a negative minimum effect.
    """
    if minimum_effect < 0:
        raise ValueError("the minimum effect cannot be negative")
    first, second = dict(a), dict(b)
    groups: dict[Hashable, list[float]] = {}
    for key in first.keys() & second.keys():
        difference = first[key] - second[key]
        if not math.isfinite(difference):
            raise ValueError(f"the values at {key!r} are not finite")
        groups.setdefault(unit(key), []).append(difference)
    if not groups:
        raise ValueError("nothing to pair: no common seed")
    # fsum is exact, so the order of a set cannot change the last bit
    values = [math.fsum(g) / len(g) for g in groups.values()]
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Difference(mean, None, None, 1, minimum_effect, "one pair")
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    half = _t_quantile(n - 1) * math.sqrt(variance / n)
    low, high = mean - half, mean + half
    return Difference(mean, low, high, n, minimum_effect, _verdict(low, high, higher_is_better, minimum_effect))


def mean_interval(values: Mapping[Any, float], limits: Limits = UNLIMITED) -> Difference:
    """A mean over seeds with its 95% interval: the difference to nothing, whose verdict says nothing.

    By seed and world, worlds are strata. They are fixed and drawn apart, so the variance of the mean of W worlds is the sum
    of the worlds' own variances over n seeds, s_w^2 / n, divided by W^2, and Welch and Satterthwaite give its degrees of
    freedom, between n - 1 and W (n - 1): two seeds of six worlds say more than two numbers do.

    Args:
        values: one per seed, or per (seed, world).
        limits: what no value can be below or above. The interval is cut to them: it is of a mean of such values.
    """
    found = paired_difference(
        values, dict.fromkeys(values, 0.0), higher_is_better=True, minimum_effect=0.0, unit=seed_of
    )
    worlds: dict[Hashable, list[float]] = {}
    for key, value in values.items():
        if isinstance(key, tuple):
            worlds.setdefault(key[1], []).append(value)
    if len(worlds) > 1 and len({len(v) for v in worlds.values()}) == 1 and found.n > 1:
        half = _stratified_half(list(worlds.values()))
        found = replace(found, low=found.mean - half, high=found.mean + half)
    if found.low is None or found.high is None:
        return found
    return replace(
        found, low=max(found.low, min(limits[0], found.mean)), high=min(found.high, max(limits[1], found.mean))
    )


def _stratified_half(worlds: Sequence[Sequence[float]]) -> float:
    """Half the width of the interval for the mean of the worlds' means."""
    of_means = []
    for values in worlds:
        n, mean = len(values), math.fsum(values) / len(values)
        of_means.append(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
    total = math.fsum(of_means)
    if not total:
        return 0.0
    freedom = total**2 / math.fsum(v**2 / (len(w) - 1) for v, w in zip(of_means, worlds, strict=True))
    return _t_quantile(freedom) * math.sqrt(total) / len(worlds)


def _t_quantile(freedom: float) -> float:
    from scipy.special import stdtrit  # a tenth of the import time of scipy.stats

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _verdict(low: float, high: float, higher_is_better: bool, effect: float) -> Verdict:
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


@dataclass(frozen=True)
class Row:
    """One line of a leaderboard.

    Attributes:
        difference: against `versus`; both None for the leading baseline of either kind, and without common seeds.
        alike: whether `versus` is of the same kind, privileged or not (`discovery.contest`).
        leads: whether it is the leading baseline of its kind.
    """

    rank: int
    entry: Entry
    mean: float
    is_baseline: bool
    versus: str | None
    difference: Difference | None
    alike: bool = True
    leads: bool = False


@dataclass(frozen=True)
class Comparison:
    """How entries are compared. `values` holds finer values per candidate id, e.g. per (seed, world), if there are any."""

    minimum_effect: float = 0.005
    unit: Callable[[Hashable], Hashable] = each
    values: Mapping[str, Mapping[Any, float]] | None = None


def leader_of(entries: Iterable[Entry]) -> Entry | None:
    """The entry with the leading mean score; ties go to the first. None if nothing is ranked."""
    ranked = _ranked(entries)
    return ranked[0] if ranked else None


def leaderboard(
    entries: Iterable[Entry],
    baselines: Iterable[Entry],
    top: int | None = None,
    comparison: Comparison | None = None,
) -> tuple[Row, ...]:
    """Candidates and baselines by mean score, each with its paired difference to the leading baseline of its kind.

    That is the one with the leading mean, chosen with the same noise as everything else: this favours the
    baseline, never the candidate. Unranked entries (no finished trial, or a failed one) are left out.

    Args:
        entries: candidates; those that are also in `baselines` appear once.
        baselines: known objectives, all of them shown whatever `top` is.
        top: how many candidates to show of each kind.

    Raises:
        ValueError: scores of different metrics.
    """
    comparison = comparison or Comparison()
    known = {e.candidate.id: e for e in baselines}
    made = _ranked(e for e in entries if e.candidate.id not in known)
    candidates = [e for kind in (False, True) for e in [m for m in made if bool(m.privileged) == kind][:top]]
    leading = _ranked(known.values())
    rows = []
    for rank, entry in enumerate(_ranked([*known.values(), *candidates]), 1):
        assert entry.score is not None
        opponent, difference = opponent_of(entry, leading), None
        leads = opponent is not None and opponent.entry is entry
        if opponent is not None and not leads:
            difference = _difference(entry, opponent.entry, comparison)
        versus = opponent.entry.name if difference is not None and opponent is not None else None
        alike = opponent is None or opponent.alike
        rows.append(Row(rank, entry, entry.score.mean, entry.candidate.id in known, versus, difference, alike, leads))
    return tuple(rows)


def _ranked(entries: Iterable[Entry]) -> list[Entry]:
    scored: Sequence[Entry] = [e for e in entries if e.score is not None and e.failure is None]
    kinds = {(e.score.metric, e.score.higher_is_better) for e in scored if e.score}
    if len(kinds) > 1:
        raise ValueError(f"cannot rank different metrics together: {sorted(m for m, _ in kinds)}")
    return sorted(scored, key=_badness)


def _badness(entry: Entry) -> float:
    assert entry.score is not None
    return -entry.score.mean if entry.score.higher_is_better else entry.score.mean


def _difference(entry: Entry, reference: Entry, comparison: Comparison) -> Difference | None:
    assert entry.score is not None
    assert reference.score is not None
    finer = comparison.values or {}
    a, b = entry.candidate.id, reference.candidate.id
    ours: Mapping[Any, float] = entry.score.by_seed
    theirs: Mapping[Any, float] = reference.score.by_seed
    if a in finer and b in finer:
        ours, theirs = finer[a], finer[b]
    if not ours.keys() & theirs.keys():
        return None
    return paired_difference(ours, theirs, entry.score.higher_is_better, comparison.minimum_effect, comparison.unit)
