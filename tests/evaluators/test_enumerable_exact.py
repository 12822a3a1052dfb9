"""The packed, enumerated numbers against slow loops that share no code with them."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.spatial import ConvexHull, QhullError
from scipy.special import log_softmax

from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.model import Batch, all_logps, features, output_layer, response_logps
from evaluators.preference.enumerable.optimum import optimal_areas, optimal_rewards, standardise
from evaluators.preference.enumerable.responses import count, tree
from evaluators.preference.enumerable.scoring import frontier_area, ideal_ranking_accuracy
from evaluators.preference.enumerable.training import examine
from evaluators.preference.enumerable.worlds import build_worlds
from tests.support.slow_language_model import SlowModel

CPU = torch.device("cpu")
LENGTH = 4  # a small tree, for loops
SMALL = tree(LENGTH)


@pytest.fixture(scope="module")
def worlds():
    return build_worlds(1, d.REGIMES[:2], SMALL)


@pytest.fixture(scope="module")
def weights(worlds):
    """(2, F, 3, 2): two policies in each world, some way off its reference."""
    noise = np.random.default_rng(0)
    outputs = np.stack([w.output for w in worlds.worlds])[..., None]
    return torch.from_numpy(outputs + 0.1 * noise.standard_normal((*outputs.shape[:3], 2)).astype(np.float32))


def slow_table(seed: int, regime: d.Regime, output: np.ndarray) -> np.ndarray:
    """(12, Y): all log-probs, read token by token, unit by unit."""
    model = SlowModel(d.generator(seed, regime.name, "features"), LENGTH, output)
    strings = [s for n in range(LENGTH + 1) for s in itertools.product(range(2), repeat=n)]
    return np.array([[model.logp(prompt, s) for s in strings] for prompt in range(12)])


@pytest.fixture(scope="module")
def slow(worlds, weights):
    """The same of the second policy of the second world."""
    return slow_table(1, d.REGIMES[1], weights[1, :, :, 1].double().numpy())


def test_responses_are_all_there_once_and_in_order():
    for length in (2, 5, 10):
        found = tree(length)
        strings = []
        for symbols, emitted in zip(found.symbols, found.emitted, strict=True):
            said = [int(s) for s in symbols[emitted]]
            strings.append(tuple(said[:-1] if said[-1] == d.EOS else said))
        assert strings == [s for n in range(length + 1) for s in itertools.product(range(2), repeat=n)]
        assert len(strings) == found.responses == count(length) == 2 ** (length + 1) - 1
        assert list(found.lengths) == [len(s) for s in strings]
        for y, string in enumerate(strings):
            for position in range(min(len(string) + 1, length)):
                assert strings[found.contexts[y, position]] == string[:position]


def test_probabilities_sum_to_one_and_equal_those_read_token_by_token(worlds, weights, slow):
    table = all_logps(torch.from_numpy(worlds.worlds[1].features).double(), weights[1].double(), SMALL)
    np.testing.assert_allclose(table.exp().sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(table[1].numpy(), slow, rtol=0, atol=2e-5)  # features are float32


def test_batched_log_probs_equal_those_of_the_tree(worlds, weights):
    random = np.random.default_rng(2)
    prompts, answers = random.integers(12, size=(2, 40)), random.integers(SMALL.responses, size=(2, 40))
    frozen = torch.from_numpy(np.stack([w.features for w in worlds.worlds])).double()
    quick = response_logps(frozen, weights.double(), Batch.of(prompts, answers, SMALL, CPU), LENGTH).numpy()
    for world in range(2):
        table = all_logps(frozen[world], weights[world].double(), SMALL).numpy()
        for run in range(2):
            expected = table[run][prompts[world], answers[world]]
            np.testing.assert_allclose(quick[2 * world + run], expected, rtol=0, atol=1e-12)


def test_gradient_of_log_probs_equals_finite_differences(worlds, weights):
    frozen = torch.from_numpy(worlds.worlds[0].features[None]).double()
    batch = Batch.of(np.array([[2, 6]]), np.array([[7, 30]]), SMALL, CPU)
    leaf = weights[:1].double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda w: response_logps(frozen, w, batch, LENGTH), [leaf], fast_mode=True)


def test_the_first_and_last_end_logits_are_those_of_the_definition():
    layers = np.stack([output_layer(np.random.default_rng(i), SMALL) for i in range(400)]).mean(0)
    offsets = layers[d.WIDTH : d.WIDTH + LENGTH, d.EOS] * d.POSITION_FEATURE
    np.testing.assert_allclose(offsets[[0, -1]], d.EOS_LOGIT, atol=0.05)
    assert features(np.random.default_rng(0), SMALL).shape == (12 * SMALL.context_count, d.WIDTH + LENGTH + 1)


def test_kl_reward_and_rankings_equal_enumeration_by_loops(worlds, slow):
    world = worlds.worlds[1]
    kl, reward, accuracy, chosen, rejected = examine(world, torch.from_numpy(slow)[None])[:, 0]
    slow_kl = slow_reward = 0.0
    for p, y in itertools.product(range(12), range(SMALL.responses)):
        slow_kl += math.exp(slow[p, y]) * (slow[p, y] - world.reference_logps[p, y]) / 12
        slow_reward += math.exp(slow[p, y]) * world.rewards[p, y] / 12
    assert (kl, reward) == (pytest.approx(slow_kl, abs=1e-11), pytest.approx(slow_reward, abs=1e-11))
    ratio, held, right, ideal = slow - world.reference_logps, world.held_out, 0.0, 0.0
    for p, a, b in zip(held.prompts, held.first, held.second, strict=True):
        gap = world.regime.sharpness * (world.rewards[p, a] - world.rewards[p, b])
        prefers = 1 / (1 + math.exp(-gap))
        right += prefers if ratio[p, a] > ratio[p, b] else 1 - prefers
        ideal += max(prefers, 1 - prefers)
    assert accuracy == pytest.approx(right / len(held.prompts), abs=1e-11)
    assert ideal_ranking_accuracy(world) == pytest.approx(ideal / len(held.prompts), abs=1e-12)
    train = world.train
    assert chosen == pytest.approx(np.mean([ratio[i] for i in zip(train.prompts, train.first, strict=True)]), abs=1e-11)
    assert rejected == pytest.approx(
        np.mean([ratio[i] for i in zip(train.prompts, train.second, strict=True)]), abs=1e-11
    )


def test_rewards_are_standardised_per_prompt_under_the_reference(worlds):
    for world in worlds.worlds:
        probs = np.exp(world.reference_logps)
        np.testing.assert_allclose((probs * world.rewards).sum(1), 0, atol=1e-12)
        np.testing.assert_allclose((probs * world.rewards**2).sum(1), 1, rtol=1e-9)


def tilted(reference: np.ndarray, rewards: np.ndarray, lam: float) -> tuple[float, float]:
    """KL and reward, averaged over prompts, of q proportional to reference * exp(r / lambda)."""
    kls, gains = [], []
    for logps, reward in zip(reference, rewards, strict=True):
        logits = logps + reward / lam
        q = np.exp(logits - logits.max())
        q /= q.sum()
        kept = q > 0
        kls.append((q[kept] * (np.log(q[kept]) - logps[kept])).sum())
        gains.append((q * reward).sum())
    return float(np.mean(kls)), float(np.mean(gains))


def test_optimal_rewards_equal_plain_bisection(worlds):
    world = worlds.worlds[0]
    budgets = np.array([0.0025, 0.01, 0.3, 1.0, 1.5])
    fast = optimal_rewards(world.reference_logps, world.rewards, budgets)
    for budget, height in zip(budgets, fast, strict=True):
        lam = brentq(lambda x, b=budget: tilted(world.reference_logps, world.rewards, x)[0] - b, 1e-3, 1e4, xtol=1e-14)
        assert height == pytest.approx(tilted(world.reference_logps, world.rewards, lam)[1], abs=1e-9)


def test_optimal_rewards_of_two_responses_have_a_closed_form():
    # ref (1/2, 1/2), r = (-1, 1): q = (1 + tanh t) / 2, reward tanh t, KL = t tanh t - log cosh t, at most log 2
    t = np.array([0.1, 0.5, 1.0, 3.0])
    budgets = t * np.tanh(t) - np.log(np.cosh(t))
    logps, rewards = np.full((1, 2), -math.log(2)), np.array([[-1.0, 1.0]])
    np.testing.assert_allclose(optimal_rewards(logps, rewards, budgets), np.tanh(t), atol=1e-9)
    np.testing.assert_allclose(optimal_rewards(logps, rewards, np.array([0.0, 0.7, 5.0])), [0, 1, 1], atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.floats(0.1, 4))
@example(127, 2, 4.0)  # a rare response is worth 500 deviations: the policy is all but certain of it at the budget
@example(2317012712, 3, 4.0)  # the same at a KL of 12, where only the last digits tell the policies apart
@example(1967283802, 2, 4.0)
def test_no_policy_beats_the_optimal_area(seed, size, sharpness):
    random = np.random.default_rng(seed)
    logps = log_softmax(random.standard_normal((3, size)) * sharpness, 1)
    rewards = standardise(random.standard_normal((3, size)), logps)
    budgets = np.linspace(0, 2, 41)
    best = optimal_rewards(logps, rewards, budgets)
    assert (np.diff(best) >= -1e-9).all()
    assert (np.diff(best, 2) <= 1e-8).all()
    for scale in (0.3, 1.0, 3.0):
        other = log_softmax(logps + scale * (rewards + 0.5 * random.standard_normal(rewards.shape)), 1)
        q = np.exp(other)
        kl, reward = (q * (other - logps)).sum(1).mean(), (q * rewards).sum(1).mean()
        assert reward <= optimal_rewards(logps, rewards, np.array([kl]))[0] + 1e-9


def test_optimal_policies_score_one(worlds):
    world = worlds.worlds[1]
    areas = optimal_areas(world.reference_logps, world.rewards, (0.5, 2.0))
    assert areas[2.0] == world.areas[2.0]
    lambdas = np.geomspace(0.05, 200, 400)
    points = np.array([tilted(world.reference_logps, world.rewards, x) for x in lambdas])
    assert frontier_area(points[:, 0], points[:, 1], 2.0) / areas[2.0] == pytest.approx(1, abs=1e-3)
    assert frontier_area(points[:, 0], points[:, 1], 2.0) <= areas[2.0] + 1e-9


def slow_height(points: list[tuple[float, float]], x: float) -> float:
    """Best reward at KL budget x over all mixtures of two points (the reference included), by trying all."""
    every = [(0.0, 0.0), *points]
    best = max(reward for kl, reward in every if kl <= x)
    for kl_a, a in every:
        for kl_b, b in every:
            if kl_a <= x < kl_b:
                best = max(best, a + (b - a) * (x - kl_a) / (kl_b - kl_a))
    return best


POINTS = st.lists(st.tuples(st.floats(0, 4), st.floats(-2, 3)), min_size=1, max_size=7)


@settings(max_examples=40, deadline=None)
@given(POINTS, st.sampled_from([0.5, 2.0, 5.0]))
def test_frontier_area_equals_the_best_mixtures_at_101_budgets(points, budget):
    grid = [budget * i / 100 for i in range(101)]
    heights = [slow_height(points, x) for x in grid]
    slow = sum((a + b) / 2 * budget / 100 for a, b in itertools.pairwise(heights))
    kl, reward = np.array(points).T
    assert frontier_area(kl, reward, budget) == pytest.approx(slow, rel=1e-9, abs=1e-9)


def test_frontier_area_equals_scipys_hull():
    random = np.random.default_rng(5)
    for _ in range(10):
        points = np.stack([random.uniform(0, 3, 30), random.normal(0.5, 1, 30)], 1)
        every = np.concatenate([[[0.0, 0.0]], points])
        try:
            hull = ConvexHull(every)
        except QhullError:  # pragma: no cover - 30 random points are not flat
            pytest.fail("random points on a line")
        upper = hull.equations[hull.equations[:, 1] > 0]  # outward normals that point up: r <= -(n0 * kl + c) / n1
        grid = np.linspace(0, 2, 101)
        top = every[every[:, 1].argmax()]
        heights = np.min([-(n0 * grid + c) / n1 for n0, n1, c in upper], axis=0)
        heights = np.where(grid >= top[0], top[1], heights)
        assert frontier_area(points[:, 0], points[:, 1], 2.0) == pytest.approx(np.trapezoid(heights, grid), abs=1e-9)
