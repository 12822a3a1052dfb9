"""Intervals of many losses at once: what a statistician would ask of them, and that luck among many is not called better."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from discovery.simultaneous import FEWEST_PAIRS, differences, family_of, holm, least_p_values
from discovery.statistics import ERROR, estimate

WORLDS = tuple(f"w{i}" for i in range(6))


def columns(seeds, losses, worlds=WORLDS, share=0.5, seed=0, effect=0.0, keyed=True):
    """Differences of losses that share noise, as those to one baseline do."""
    rng = np.random.default_rng(seed)
    common, own = rng.standard_normal((seeds, len(worlds), 1)), rng.standard_normal((seeds, len(worlds), losses))
    drawn = effect + np.sqrt(share) * common + np.sqrt(1 - share) * own
    return [
        {((s, w) if keyed else s): float(drawn[s, i, loss]) for i, w in enumerate(worlds) for s in range(seeds)}
        for loss in range(losses)
    ]


def ends(found):
    return [(d.low, d.high) for d in found]


@pytest.mark.parametrize(("seeds", "worlds"), [(4, 6), (4, 10), (10, 3), (20, 1)])
def test_a_loss_alone_has_its_own_t_interval(seeds, worlds):
    """Exactly, as a family of one; and max-T itself comes to that within its Monte-Carlo error and that of Student's t."""
    shares = []
    for seed in range(12):
        (one,) = columns(seeds, 1, WORLDS[:1] * worlds if worlds == 1 else tuple(range(worlds)), seed=seed)
        (found,) = differences([one], True, 0.0)
        assert (found.low, found.high) == estimate(one).interval()
        assert (found.family.size, found.family.method) == (1, "alone")
        shares.append(np.mean(least_p_values([one]) <= ERROR))
    assert np.mean(shares) == pytest.approx(ERROR, abs=0.012)


def test_max_t_is_narrower_than_bonferroni_and_wider_than_one_alone():
    made = columns(4, 20)
    found = differences(made, True, 0.0)
    family = found[0].family
    assert (family.size, family.method, family.draws) == (20, "max-T", 9_999)
    assert ERROR / 20 < family.error < ERROR / 4
    for difference, column in zip(found, made, strict=True):
        low, high = estimate(column).interval()
        assert difference.low < low
        assert difference.high > high
    assert family_of(columns(4, 20, share=0.999)).error > 3 * family.error  # nearly the same loss twenty times


def test_the_quantile_is_that_of_dunnett_where_dunnett_applies():
    """Many pairs of equal correlation: the two-sided critical value of normal maxima with correlation 1/2 is known."""
    family = family_of(columns(60, 5, tuple(range(3)), seed=4))
    critical = student.isf(family.error / 2, 1000)
    assert critical == pytest.approx(2.51, abs=0.05)  # Dunnett (1964), k = 5, infinite degrees of freedom


@pytest.mark.parametrize("seeds", [3, 4])
def test_a_copy_of_a_loss_or_of_the_baseline_changes_nothing(seeds):
    made = columns(seeds, 5)
    alike = dict.fromkeys(made[0], 0.0)
    before, after = (
        differences(made, True, 0.0),
        differences([*made, dict(reversed(made[2].items())), alike], True, 0.0),
    )
    assert ends(after[:5]) == ends(before)
    assert [d.p for d in after[:5]] == [d.p for d in before]
    assert ends(after)[5] == ends(before)[2]
    assert after[5].p == before[2].p
    assert (after[6].verdict, after[6].low, after[6].high) == ("equal", 0.0, 0.0)


@pytest.mark.parametrize("seeds", [2, 4, 6])
def test_the_order_of_losses_changes_nothing(seeds):
    made = columns(seeds, 7)
    made[3] = {key: value for key, value in made[3].items() if key[1] != "w0"}
    order = [3, 1, 0, 6, 2, 5, 4]
    found, other = differences(made, True, 0.0), differences([made[i] for i in order], True, 0.0)
    assert ends(other) == [ends(found)[i] for i in order]
    assert [d.p for d in other] == [found[i].p for i in order]


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([2, 5]), st.floats(1e-6, 1e6), st.integers(0, 100))
def test_scale_and_sign_are_carried_through(seeds, scale, seed):
    made = columns(seeds, 4, WORLDS[:3], seed=seed)
    found = differences(made, True, 0.0)
    scaled = differences([{k: v * scale for k, v in c.items()} for c in made], True, 0.0)
    np.testing.assert_allclose(ends(scaled), np.multiply(ends(found), scale), rtol=1e-6)
    turned = differences([{k: -v for k, v in c.items()} for c in made], False, 0.0)
    np.testing.assert_allclose(ends(turned), [(-high, -low) for low, high in ends(found)], rtol=1e-12)
    assert [d.verdict for d in turned] == [d.verdict for d in found]


def test_each_loss_may_have_a_scale_of_its_own():
    made = columns(4, 4)
    scales = (1e-150, 1e-3, 1.0, 1e149)
    found = differences([{k: v * s for k, v in c.items()} for c, s in zip(made, scales, strict=True)], True, 0.0)
    for difference, plain, scale in zip(found, differences(made, True, 0.0), scales, strict=True):
        np.testing.assert_allclose(
            [difference.low / scale, difference.high / scale], [plain.low, plain.high], rtol=1e-6
        )


def test_differences_that_are_all_alike_have_no_luck():
    same = [dict.fromkeys(columns(4, 1)[0], value) for value in (0.0, 0.25, -0.5)]
    found = differences(same, True, 0.1)
    assert [d.verdict for d in found] == ["equal", "better", "worse"]
    assert [d.p for d in found] == [1.0, 0.0, 0.0]
    made = columns(4, 3)
    assert ends(differences([*made, *same], True, 0.1)[:3]) == ends(differences(made, True, 0.1))


def test_without_worlds_seeds_are_the_pairs_and_few_of_them_are_judged_by_holm():
    for seeds, method in ((2, "Holm"), (4, "Holm"), (FEWEST_PAIRS - 1, "Holm"), (FEWEST_PAIRS, "max-T"), (16, "max-T")):
        family = family_of(columns(seeds, 3, (0,), keyed=False))
        assert family.method == method
        assert family.draws == {"Holm": 0, "max-T": min(9_999, 2 ** (seeds - 1))}[method]
    assert family_of(columns(3, 3)).method == "Holm"  # 18 pairs, but of three seeds
    assert family_of(columns(4, 3)).method == "max-T"
    assert family_of(columns(40, 3), joint=False).method == "Holm"


def test_missing_pairs_leave_a_loss_with_those_that_it_has():
    made = columns(8, 3)
    whole = differences(made, True, 0.0)
    made[1] = {key: value for key, value in made[1].items() if key not in [(2, "w1"), (5, "w1")]}
    found = differences(made, True, 0.0)
    assert found[1].n == whole[1].n - 2
    assert found[1].mean == pytest.approx(
        np.mean([np.mean([v for k, v in made[1].items() if k[1] == w]) for w in WORLDS])
    )
    assert found[0].family.method == "max-T"
    np.testing.assert_allclose(ends(found)[0], ends(whole)[0], rtol=0.02)  # the others hardly notice
    made[1] = {key: value for key, value in made[1].items() if key[0] < 3}  # three seeds of one loss: Holm for all
    assert differences(made, True, 0.0)[0].family.method == "Holm"


def test_one_seed_without_worlds_has_no_interval():
    found = differences([{0: 1.0}, {0: 2.0}], True, 0.0)
    assert [(d.low, d.p, d.verdict) for d in found] == [(None, None, "one pair")] * 2
    with pytest.raises(ValueError, match="negative"):
        differences([{0: 1.0}], True, -1.0)
    assert differences([], True, 0.0) == ()


def test_holm_is_stepwise_and_its_intervals_have_the_width_of_bonferroni():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    made = columns(3, 4, effect=1.0)
    found = differences(made, True, 0.0)
    for difference, column in zip(found, made, strict=True):
        assert (difference.low, difference.high) == estimate(column).interval(ERROR / 4)
        assert difference.p is not None
        if difference.low > 0 or difference.high < 0:
            assert difference.p <= ERROR  # what an interval separates from 0, Holm's test does too


@pytest.mark.parametrize("seeds", [3, 4])
def test_an_interval_excludes_0_only_with_its_p_value(seeds):
    for seed in range(20):
        for difference in differences(columns(seeds, 6, seed=seed, effect=0.4), True, 0.0):
            outside = difference.low > 0 or difference.high < 0
            assert not outside or difference.p <= ERROR + 1e-3
            if difference.family.method == "max-T":
                assert outside == (difference.p <= ERROR + 1e-3) or abs(difference.p - ERROR) < 2e-3


def test_the_same_values_give_the_same_intervals():
    assert differences(columns(4, 9), True, 0.0) == differences(columns(4, 9), True, 0.0)


@pytest.mark.parametrize(("seeds", "losses"), [(3, 20), (4, 20)])
def test_of_twenty_losses_that_are_none_better_luck_makes_none(seeds, losses):
    """One by one, one of twenty looks better or worse on most boards; at once, on one in twenty."""
    at_once = alone = 0
    for seed in range(30):
        made = columns(seeds, losses, WORLDS[:4], seed=1000 + seed)
        at_once += any(d.verdict in ("better", "worse") for d in differences(made, True, 0.0))
        alone += any(e[0] > 0 or e[1] < 0 for e in (estimate(c).interval() for c in made))
    assert alone >= 8
    assert at_once <= 5


@pytest.mark.parametrize("losses", [300, pytest.param(5_000, marks=pytest.mark.slow)])
def test_thousands_of_losses_take_seconds_and_little_memory(losses):
    made = columns(4, losses)
    tracemalloc.start()
    started = time.process_time()
    family = family_of(made)
    took, most = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert family.method == "max-T"
    assert most < 30e6 + 20e3 * losses
    assert took < 1 + 0.02 * losses
