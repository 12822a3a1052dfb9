import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp, ttest_ind, ttest_rel

from db.records import Entry, Score
from discovery import statistics
from discovery.ranking import Comparison, leaderboard
from discovery.statistics import MEANINGS, Verdict, verdict_of
from sandbox.candidate import Candidate
from sandbox.failure import Failure, FailureKind

VALUES = st.floats(-100, 100, allow_nan=False).map(lambda v: round(v, 6))
COMPARISON = Comparison(0.005)
PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=12)


def paired_difference(a, b, higher_is_better, minimum_effect=0.005):
    return statistics.paired_difference(a, b, higher_is_better, minimum_effect)


def keyed(values):
    return dict(enumerate(values))


def entry(name: str, scores, higher_is_better: bool = True, metric: str = "frontier", **rest) -> Entry:
    by_seed = scores if isinstance(scores, dict) else keyed(scores)
    score = Score(metric, higher_is_better, by_seed) if by_seed else None
    return Entry(Candidate("c", f"# {name}"), name, "", "proposed", "evolve", "run", score=score, **rest)


@given(PAIRS)
def test_the_interval_is_that_of_the_paired_t_test(pairs):
    a, b = zip(*pairs, strict=True)
    assume(np.std(np.subtract(a, b)) > 1e-6)
    oracle = ttest_rel(a, b).confidence_interval(0.95)
    ours = paired_difference(keyed(a), keyed(b), True)
    np.testing.assert_allclose((ours.low, ours.high), (oracle.low, oracle.high), rtol=1e-7, atol=1e-7)
    assert ours.n == len(pairs)


@given(PAIRS, st.booleans(), st.floats(0, 5))
def test_swapping_the_losses_swaps_the_verdict(pairs, higher_is_better, effect):
    a, b = (keyed(v) for v in zip(*pairs, strict=True))
    one, other = paired_difference(a, b, higher_is_better, effect), paired_difference(b, a, higher_is_better, effect)
    swap = dict(zip(MEANINGS, [*reversed(list(MEANINGS)[:-1]), "one pair"], strict=True))
    assert (swap["better"], swap["ahead"]) == ("worse", "behind")
    swap |= {"equal": "equal", "within": "within", "not separated": "not separated"}
    assert other.verdict == swap[one.verdict]
    assert other.mean == -one.mean
    np.testing.assert_allclose((other.low, other.high), (-one.high, -one.low), atol=1e-12)
    assert paired_difference(a, b, not higher_is_better, effect).verdict == swap[one.verdict]


@given(PAIRS, st.floats(0, 5))
def test_a_verdict_needs_the_whole_interval_beyond_the_minimum_effect(pairs, effect):
    a, b = (keyed(v) for v in zip(*pairs, strict=True))
    found = paired_difference(a, b, True, effect)
    assert (found.verdict == "better") == (found.low > effect)
    assert (found.verdict == "worse") == (found.high < -effect)


@given(PAIRS, st.randoms(use_true_random=False))
def test_order_and_extra_seeds_do_not_matter(pairs, random):
    keys = list(range(len(pairs)))
    a, b = ({k: p[i] for k, p in zip(keys, pairs, strict=True)} for i in (0, 1))
    random.shuffle(keys)
    assert paired_difference({k: a[k] for k in keys} | {99: 1.0}, b | {98: 5.0}, True) == paired_difference(a, b, True)


def test_a_rescaled_loss_that_is_surely_a_little_better_is_not_called_better():
    a, b = keyed([0.801, 0.711, 0.6011, 0.9009]), keyed([0.8, 0.71, 0.6, 0.9])
    found = paired_difference(a, b, True)
    assert found.low > 0
    assert (found.verdict, found.says) == ("within", "within 0.005")
    assert paired_difference(a, b, True, minimum_effect=0.0).verdict == "better"


WHERE = {  # an interval that is turned so that above 0 is better, at the minimum effect 0.005
    "better": [(0.006, 0.1), (0.0050001, 0.0050002)],
    "ahead": [(0.001, 0.006), (0.005, 0.0051), (1e-9, 0.1)],
    "within": [(-0.005, 0.005), (0.0, 0.001), (0.001, 0.002), (-0.004, -0.003)],
    "not separated": [(-0.0051, 0.0), (0.0, 0.0051), (-0.1, 0.1), (-0.001, 0.03), (-0.0018, 0.0102)],
    "behind": [(-0.0127, -0.0007), (-0.0051, -0.005)],
    "worse": [(-0.0411, -0.012)],
    "equal": [(0.0, 0.0)],
}


def interval_of(low, high):
    """A difference whose interval is this one: two pairs around its middle."""
    from scipy.stats import t

    half = (high - low) / 2 / t.ppf(0.975, 1)
    middle = (low + high) / 2
    return {0: middle - half, 1: middle + half}


@pytest.mark.parametrize(("verdict", "low", "high"), [(v, *i) for v, all_of in WHERE.items() for i in all_of])
def test_a_verdict_says_where_the_interval_lies(verdict, low, high):
    assert verdict_of(low, high, True, 0.005) == verdict
    assert verdict_of(-high, -low, False, 0.005) == verdict
    if low not in (0.0, -0.005, 0.005) and high not in (0.0, -0.005, 0.005):  # ends that rounding moves across a border
        assert paired_difference(interval_of(low, high), {0: 0.0, 1: 0.0}, True).verdict == verdict


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_every_interval_has_exactly_oneverdict_of(low, width, effect):
    high = low + width
    holds = {
        "better": low > effect,
        "worse": high < -effect,
        "equal": low == high == 0,
        "within": -effect <= low and high <= effect and not low == high == 0,
        "ahead": 0 < low <= effect < high,
        "behind": low < -effect <= high < 0,
        "not separated": low <= 0 <= high and (low < -effect or high > effect),
    }
    assert [v for v, true in holds.items() if true] == [verdict_of(low, high, True, effect)]
    assert {*holds, "one pair"} == {*MEANINGS} == {*get_args(Verdict)}


def test_nothing_that_excludes_0_is_called_not_separated():
    found = paired_difference(interval_of(-0.0127, -0.0007), {0: 0.0, 1: 0.0}, True)
    assert found.verdict == "behind"
    assert paired_difference(interval_of(-0.0127, -0.0007), {0: 0.0, 1: 0.0}, True, 0.0).verdict == "worse"


def test_one_pair_has_no_interval_and_noverdict_of():
    found = paired_difference({0: 1.0}, {0: 0.1}, True)
    assert (found.low, found.high, found.n, found.verdict) == (None, None, 1, "one pair")


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="no common seed"):
        paired_difference({0: 1.0}, {1: 1.0}, True)
    with pytest.raises(ValueError, match="not finite"):
        paired_difference({0: float("nan")}, {0: 1.0}, True)
    with pytest.raises(ValueError, match="negative"):
        paired_difference({0: 1.0}, {0: 1.0}, True, -1.0)


def test_from_four_seeds_on_worlds_have_variances_of_their_own():
    """The interval by Welch and Satterthwaite, against the formula written out for two worlds (as for two samples)."""
    rng = np.random.default_rng(3)
    for seeds in (4, 7):
        x, y = rng.normal(0.5, 1.0, seeds), rng.normal(-2.0, 5.0, seeds)
        a = {(s, w): float(v[s]) for w, v in (("x", x), ("y", y)) for s in range(seeds)}
        found = paired_difference(a, dict.fromkeys(a, 0.0), True)
        oracle = ttest_ind(x, -y, equal_var=False).confidence_interval(0.95)  # of x + y, twice the mean of the two
        np.testing.assert_allclose((found.low, found.high), (oracle.low / 2, oracle.high / 2), rtol=1e-9)
    three = {key: value for key, value in a.items() if key[0] < 3}
    pooled = ttest_1samp(list(three.values()), 0.0).confidence_interval(0.95)
    found = paired_difference(three, dict.fromkeys(three, 0.0), True)
    np.testing.assert_allclose((found.low, found.high), (pooled.low, pooled.high), rtol=1e-9)


def test_worlds_count_alike_whatever_pairs_they_lack():
    full = {(s, w): float(w) + 0.1 * s for s in range(8) for w in range(2)}
    lacking = {key: value for key, value in full.items() if key not in [(6, 1), (7, 1)]}
    found = paired_difference(lacking, dict.fromkeys(lacking, 0.0), True)
    assert found.mean == pytest.approx((0.35 + 1.25) / 2)
    assert found.n == 14


@pytest.mark.parametrize("scale", [1e-140, 1e-12, 1.0, 1e149])
def test_values_of_any_size_that_a_report_may_hold_have_intervals(scale):
    a = {(s, w): scale * ((s * 7 + w * 3) % 5 - w) for s in range(5) for w in range(3)}
    one, other = (
        paired_difference(v, dict.fromkeys(v, 0.0), True, 0.0) for v in (a, {k: v / scale for k, v in a.items()})
    )
    assert one.verdict == other.verdict
    np.testing.assert_allclose([one.low / scale, one.high / scale], [other.low, other.high], rtol=1e-6)


@pytest.mark.parametrize("seeds", [1, 2, 4, 10])
def test_intervals_over_seeds_and_worlds_cover_the_mean_over_regimes(seeds):
    """Regimes differ in effect and in noise, draws are independent: the 95% interval must not be too narrow."""
    rng = np.random.default_rng(0)
    effects, noise = np.array([0.02, 0.01, -0.01, 0.0, 0.03, 0.0]), np.array([0.01, 0.03, 0.02, 0.01, 0.02, 0.04])
    hits = 0
    for _ in range(400):
        drawn = effects + noise * rng.standard_normal((seeds, 6))
        a = {(s, w): float(drawn[s, w]) for s in range(seeds) for w in range(6)}
        found = paired_difference(a, dict.fromkeys(a, 0.0), True)
        hits += found.low <= effects.mean() <= found.high
    assert hits / 400 >= 0.93


def test_leaderboard_compares_with_the_leading_baseline():
    dpo, lrml = entry("dpo", [0.80, 0.82, 0.81]), entry("lrml", [0.70, 0.72, 0.71])
    good, poor = entry("good", [0.86, 0.88, 0.871]), entry("poor", [0.5, 0.52, 0.51])
    unranked = entry("unranked", [])
    failed = entry("failed", [0.99, 0.99, 0.99], failure=Failure(FailureKind.CRASH, "boom"))
    rows = leaderboard([poor, good, unranked, failed, dpo], [lrml, dpo], COMPARISON)
    assert [(r.rank, r.entry.name, r.is_baseline) for r in rows] == [
        (1, "good", False),
        (2, "dpo", True),
        (3, "lrml", True),
        (4, "poor", False),
    ]
    assert [r.versus for r in rows] == ["dpo", None, "dpo", "dpo"]
    assert [r.difference.verdict for r in rows if r.difference] == ["better", "worse", "worse"]
    assert [r.entry.name for r in leaderboard([poor, good], [dpo], COMPARISON, top=1)] == ["good", "dpo"]


def test_leaderboard_knows_that_less_can_be_better():
    rows = leaderboard(
        [entry("a", [0.2, 0.21], False)], [entry("b", [0.5, 0.51], False), entry("c", [0.9, 0.9], False)], COMPARISON
    )
    assert [r.entry.name for r in rows] == ["a", "b", "c"]
    assert rows[0].versus == "b"
    assert rows[0].difference.verdict == "better"


def test_leaderboard_takes_finer_values_where_both_have_them():
    a, b = entry("a", [0.9]), entry("b", [0.8])
    values = {e.candidate.id: {(0, w): e.score.mean + 0.001 * w * w for w in range(6)} for e in (a, b)}
    assert leaderboard([a], [b], COMPARISON)[0].difference.n == 1
    found = leaderboard([a], [b], Comparison(0.005, values))[0].difference
    assert (found.n, found.verdict) == (6, "better")
    assert leaderboard([a], [b], Comparison(0.005, {a.candidate.id: {}}))[0].difference.n == 1


def test_leaderboard_without_baselines_or_common_seeds_still_ranks():
    rows = leaderboard([entry("a", {0: 1.0}), entry("b", {0: 2.0})], [], COMPARISON)
    assert [(r.entry.name, r.difference) for r in rows] == [("b", None), ("a", None)]
    assert leaderboard([entry("a", {0: 1.0})], [entry("d", {5: 0.1})], COMPARISON)[0].difference is None
    with pytest.raises(ValueError, match="different metrics"):
        leaderboard([entry("a", [1.0], metric="x")], [entry("b", [1.0])], COMPARISON)


def test_scipy_is_imported_only_when_an_interval_is_asked_for():
    code = "import sys, discovery.simultaneous, discovery.anytime; print('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
