"""Seeds that are added until something is decided: the evidence is the mixture's, and looking after each seed is free."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import integrate

from discovery.anytime import SPREAD, any_time_difference, fewest_seeds, log_e_value, reach
from discovery.cli.evaluate import Trials
from discovery.statistics import paired_difference
from tests.support.command import discovery


def log_mixture(values, spread):
    """Logarithm of the integral over s of N(values | 0, s^2 (1 + spread^2 J)) ds / s, by quadrature."""
    x, n = np.array(values), len(values)
    shape = np.eye(n) + spread**2 * np.ones((n, n))
    squared, volume = x @ np.linalg.solve(shape, x), np.linalg.slogdet(shape)[1]

    def density(log_s):
        return math.exp(-squared / 2 * math.exp(-2 * log_s) - n * log_s - volume / 2)

    return math.log(integrate.quad(density, -10, 12, epsabs=0, epsrel=1e-10, limit=500)[0])


@pytest.mark.parametrize("n", [2, 3, 6, 15])
@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_the_closed_form_is_the_ratio_of_two_integrals(n, spread):
    values = np.random.default_rng(n).normal(0.6, 1.3, n)
    assert log_e_value(values, spread) == pytest.approx(
        log_mixture(values, spread) - log_mixture(values, 0.0), abs=1e-7
    )


@pytest.mark.parametrize("n", [4, 5, 12, 40])
@pytest.mark.parametrize("error", [0.05, 0.001])
def test_the_interval_ends_where_the_evidence_reaches_the_bound(n, error):
    values = np.random.default_rng(n).normal(0.6, 1.3, n)
    half = reach(n, error) * values.std(ddof=1) / math.sqrt(n)
    if half == math.inf:
        assert n < fewest_seeds(error)
        return
    for end in (values.mean() - half, values.mean() + half):
        assert log_e_value(values - end) == pytest.approx(-math.log(error), rel=1e-9)


def test_the_evidence_ends_somewhere_for_differences_that_are_all_alike():
    assert log_e_value([0.5] * 6) == pytest.approx(5 / 2 * math.log(1 + 6 * SPREAD**2))
    assert log_e_value([0.5] * 6) == pytest.approx(log_e_value([0.5, 0.5 + 1e-7] * 3), rel=1e-6)
    assert log_e_value([0.0] * 6) == -0.5 * math.log(1 + 6 * SPREAD**2)
    assert log_e_value([0.5]) == 0.0
    alike = dict.fromkeys(range(6), 0.5)
    assert any_time_difference(alike, dict.fromkeys(alike, 0.0), True, 0.1).verdict == "better"
    few = dict.fromkeys(range(3), 0.5)
    assert any_time_difference(few, dict.fromkeys(few, 0.0), True, 0.1).low is None


def test_scale_does_not_matter_and_signs_turn():
    values = np.random.default_rng(1).normal(0.6, 1.3, 7)
    assert log_e_value(values * 1e-9) == pytest.approx(log_e_value(values))
    assert log_e_value(-values) == pytest.approx(log_e_value(values))
    a = dict(enumerate(map(float, values)))
    zero = dict.fromkeys(a, 0.0)
    one, other = any_time_difference(a, zero, True, 0.1), any_time_difference(zero, a, False, 0.1)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.verdict == other.verdict


def test_seeds_are_the_units_whatever_worlds_they_have():
    values = {(s, w): float(s + 10 * i) for s in range(6) for i, w in enumerate("abc")}
    means = {s: float(s + 10) for s in range(6)}
    one, other = (any_time_difference(v, dict.fromkeys(v, 0.0), True, 0.0) for v in (values, means))
    assert (one.low, one.high, one.n) == (other.low, other.high, 6)
    values.pop((2, "b"))
    assert any_time_difference(values, dict.fromkeys(values, 0.0), True, 0.0).n == 5


def test_more_losses_share_the_error():
    a = {s: 0.5 + 0.01 * s for s in range(10)}
    alone, shared = (any_time_difference(a, dict.fromkeys(a, 0.0), True, 0.0, comparisons=m) for m in (1, 10))
    assert shared.low < alone.low
    assert shared.p == pytest.approx(min(1.0, 10 * alone.p))
    assert (shared.family.size, shared.family.error) == (10, 0.005)
    with pytest.raises(ValueError, match="negative"):
        any_time_difference(a, a, True, -1.0)


def looks(values, upto):
    """How often any interval of (cases, seeds) excludes 0 at a look from two seeds on: at any time, and by t each time."""
    from scipy.stats import t

    n = np.arange(1, upto + 1)
    mean = np.cumsum(values, 1) / n
    error = np.sqrt((np.cumsum(values**2, 1) - n * mean**2)[:, 1:] / (n - 1)[1:] / n[1:])
    distance = np.abs(mean[:, 1:]) / error
    return [(distance > widths).any(1).mean() for widths in ([reach(k) for k in n[1:]], t.isf(0.025, n[1:] - 1))]


def test_looking_after_every_seed_from_2_to_20_says_better_of_nothing_in_at_most_5_of_100_cases():
    values = np.random.default_rng(0).standard_normal((4_000, 20))
    at_any_time, each_time = looks(values, 20)
    assert at_any_time <= 0.05
    assert each_time > 0.15  # better or worse, where each look believes its own interval


def test_a_difference_that_is_there_is_found():
    """A difference of one standard deviation of a seed's difference takes some 14 seeds; of two, seven."""
    rng, needed = np.random.default_rng(0), []
    for _ in range(200):
        drawn = rng.normal(1.0, 0.5, 40)
        for n in range(2, 41):
            a = dict(enumerate(map(float, drawn[:n])))
            if any_time_difference(a, dict.fromkeys(a, 0.0), True, 0.0).verdict == "better":
                needed.append(n)
                break
    assert len(needed) == 200
    assert 5 < np.mean(needed) < 9


PLANTED = """
from dataclasses import replace
from benchmarks.sleep_evaluator import SleepEvaluator
from evaluators.base import MetricSpec
from evaluators.objectives import known_objective


class Planted(SleepEvaluator):
    name = "planted"
    metrics = (replace(SleepEvaluator.metrics[0], minimum_effect=0.25),)

    def run(self, oracle, seed):
        found = super().run(oracle, seed)
        loses = oracle.candidate == known_objective("preference.pairs", "ipo").candidate
        return replace(found, metrics=(replace(found.metrics[0], value=found.metrics[0].value - 1.5 * loses),))
"""
CHEAP = ("--evaluator", "planted:Planted", "--set", "seconds=0", "--against", "dpo")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder")
def test_evaluate_adds_seeds_until_two_losses_are_decided():
    found = discovery("evaluate", "ipo", *CHEAP, "--until-decided", "--json")
    assert found.code == 0, found.error
    values = json.loads(found.stdout)
    difference, seeds = values["against"]["difference"], [t["seed"] for t in values["trials"]]
    assert seeds == list(range(difference["n"])) == [t["seed"] for t in values["against"]["trials"]]
    assert fewest_seeds() <= len(seeds) < 20
    assert (difference["verdict"], difference["minimum_effect"]) == ("worse", 0.25)
    assert difference["high"] < -0.25
    assert (difference["family"]["method"], values["against"]["name"]) == ("any time", "dpo")
    before = found.stderr.split(f"seed {seeds[-1]}")[0]
    assert "worse" not in before  # the first seed that decides is the last


@pytest.mark.usefixtures("folder")
def test_evaluate_compares_on_given_seeds_and_says_what_is_not_decided():
    text = discovery("evaluate", "hinge", *CHEAP, "--seeds", "6").stdout
    assert text.strip().splitlines()[-1].startswith("score against dpo, 95%: ")
    assert not any("[" in line for line in text.splitlines() if line.startswith("seed "))  # nothing to stop by
    text = discovery("evaluate", "hinge", *CHEAP, "--seeds", "6", "--until-decided").stdout
    last = " ".join(text.partition("score against")[2].split())  # in as many lines as the width asks for
    assert last.startswith("dpo, 95% at any time: ")
    assert last.endswith("not separated, not decided after 6 seeds")
    assert sum("[" in line for line in text.splitlines() if line.startswith("seed ")) == 3  # from the fourth on


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--until-decided",), "name the other loss with --against"),
        (("--against", "dpo"), "dpo and dpo are the same loss"),
        (("--against", "dppo"), "did you mean 'dpo'"),
        (("--against", "ipo", "--until-decided", "--seeds", "2"), "takes 4 to 200 seeds, not 2"),
        (("--against", "ipo", "--until-decided", "--seeds", "3000"), "takes 4 to 200 seeds, not 3,000"),
    ],
)
def test_what_cannot_be_decided_is_refused_in_a_line(options, says):
    ended = discovery("evaluate", "dpo", *options)
    assert ended.code == 2
    assert says in " ".join(ended.error.split())


def test_the_seeds_that_may_be_needed():
    assert len(Trials("e", None, against="dpo", until_decided=True).seed_list) == 20
    assert Trials("e", None).seed_list == (0,)
    assert Trials("e", "7,9", against="dpo").seed_list == (7, 9)
    assert reach(1) == reach(2) == math.inf
    assert fewest_seeds() == 4
    assert [reach(n) for n in range(4, 30)] == sorted((reach(n) for n in range(4, 30)), reverse=True)
    values = {s: 0.1 * (s % 3) for s in range(8)}
    fixed = paired_difference(values, dict.fromkeys(values, 0.0), True, 0.0)
    assert any_time_difference(values, dict.fromkeys(values, 0.0), True, 0.0).low < fixed.low
