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
from evaluators.preference.enumerable.model import Batch, Parameters, all_logps, initial_parameters, response_logps
from evaluators.preference.enumerable.optimum import optimal_areas, optimal_rewards, standardise
from evaluators.preference.enumerable.options import EnumerableOptions
from evaluators.preference.enumerable.responses import strings
from evaluators.preference.enumerable.scoring import frontier_area, ideal_ranking_accuracy
from evaluators.preference.enumerable.training import Examiner
from evaluators.preference.enumerable.worlds import build_worlds

CPU = torch.device("cpu")


def slow_logp(weights: list[np.ndarray], prompt: tuple[int, int], string: tuple[int, ...]) -> float:
    """Log-prob of one response, read token by token, unit by unit."""
    reads, recurs, writes, bias = weights
    width = recurs.shape[0]
    state = np.zeros(width)

    def read(state, token):
        new = np.empty(width)
        for unit in range(width):
            reset = 1 / (1 + math.exp(-(reads[token, unit] + state @ recurs[:, unit])))
            keep = 1 / (1 + math.exp(-(reads[token, width + unit] + state @ recurs[:, width + unit])))
            fresh = math.tanh(reads[token, 2 * width + unit] + reset * (state @ recurs[:, 2 * width + unit]))
            new[unit] = (1 - keep) * fresh + keep * state[unit]
        return new

    def emit(state, symbol):
        logits = [state @ writes[:, s] + bias[s, 0] for s in range(5)]
        return logits[symbol] - math.log(sum(math.exp(x) for x in logits))

    for token in prompt:
        state = read(state, token)
    total = 0.0
    for token in string:
        total += emit(state, token)
        state = read(state, token)
    return total + (emit(state, 4) if len(string) < 4 else 0.0)


@pytest.fixture(scope="module")
def worlds():
    return build_worlds(1)


@pytest.fixture(scope="module")
def policy(worlds):
    """Double-precision policies some way off the references, two per world."""
    repeated = worlds.reference.repeat(2)
    noise = np.random.default_rng(0)
    moved = [t.detach().double() + 0.1 * torch.from_numpy(noise.standard_normal(t.shape)) for t in repeated.tensors()]
    return Parameters(*moved)


def weights_of(parameters: Parameters, run: int) -> list[np.ndarray]:
    return [t[run].double().numpy() for t in parameters.tensors()]


@pytest.fixture(scope="module")
def slow_tables(policy):
    """Run -> (12, 341): all log-probs by the slow loop."""
    return {
        run: np.array([[slow_logp(weights_of(policy, run), p, s) for s in strings()] for p in d.PROMPTS])
        for run in (7,)
    }


def test_there_are_341_distinct_responses_and_their_probabilities_sum_to_one(policy):
    assert len(set(strings())) == len(strings()) == 341
    np.testing.assert_allclose(all_logps(policy).exp().sum(-1), 1, rtol=1e-12)


def test_tree_log_probs_equal_token_by_token_ones(policy, slow_tables):
    table = all_logps(policy).numpy()
    for run, slow in slow_tables.items():
        np.testing.assert_allclose(table[run], slow, rtol=0, atol=1e-11)


def test_batched_log_probs_equal_token_by_token_ones():
    parameters = initial_parameters([np.random.default_rng(i) for i in range(2)])
    prompts = np.array([[0, 5, 11, 3, 3], [1, 1, 2, 7, 9]])
    answers = np.array([[0, 4, 340, 20, 84], [1, 85, 200, 100, 0]])
    with torch.no_grad():
        quick = response_logps(parameters, Batch.of(prompts, answers, CPU, repeat=1)).numpy()
    for run in range(2):
        weights = [t.detach()[run].double().numpy() for t in parameters.tensors()]
        for n in range(5):
            slow = slow_logp(weights, d.PROMPTS[prompts[run, n]], strings()[answers[run, n]])
            assert quick[run, n] == pytest.approx(slow, abs=1e-5)


def test_gradient_of_log_probs_equals_finite_differences():
    parameters = initial_parameters([np.random.default_rng(3)])
    doubles = [t.detach().double().requires_grad_(True) for t in parameters.tensors()]
    batch = Batch.of(np.array([[2, 6]]), np.array([[7, 300]]), CPU)
    batch = Batch(batch.prompts.double(), batch.tokens.double(), batch.targets.double())

    def logps(*tensors):
        return response_logps(Parameters(*tensors), batch)

    assert torch.autograd.gradcheck(logps, doubles, fast_mode=True)


def test_kl_reward_and_rankings_equal_enumeration_by_loops(worlds, policy, slow_tables):
    values = Examiner(worlds, EnumerableOptions(betas=(0.1, 0.2)), CPU)(policy, 5)
    for run, slow in slow_tables.items():
        world = worlds.worlds[run // 2]
        reference = world.reference_logps
        kl = reward = 0.0
        for p in range(12):
            for y in range(341):
                kl += math.exp(slow[p, y]) * (slow[p, y] - reference[p, y]) / 12
                reward += math.exp(slow[p, y]) * world.rewards[p, y] / 12
        assert float(values["kl"][run]) == pytest.approx(kl, abs=1e-11)
        assert float(values["reward"][run]) == pytest.approx(reward, abs=1e-11)
        ratio = slow - reference
        held = world.held_out
        right = ideal = 0.0
        for p, a, b in zip(held.prompts, held.first, held.second, strict=True):
            gap = world.regime.sharpness * (world.rewards[p, a] - world.rewards[p, b])
            prefers = 1 / (1 + math.exp(-gap))
            right += prefers if ratio[p, a] > ratio[p, b] else 1 - prefers
            ideal += max(prefers, 1 - prefers)
        assert float(values["ranking_accuracy"][run]) == pytest.approx(right / len(held.prompts), abs=1e-11)
        assert ideal_ranking_accuracy(world) == pytest.approx(ideal / len(held.prompts), abs=1e-12)
        train = world.train
        chosen = np.mean([ratio[p, y] for p, y in zip(train.prompts, train.first, strict=True)])
        rejected = np.mean([ratio[p, y] for p, y in zip(train.prompts, train.second, strict=True)])
        assert float(values["chosen_change"][run]) == pytest.approx(chosen, abs=1e-11)
        assert float(values["rejected_change"][run]) == pytest.approx(rejected, abs=1e-11)


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
    budgets = np.array([0.0025, 0.01, 0.3, 1.0, 2.0, 4.0])
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
    world = worlds.worlds[3]
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
def test_frontier_area_equals_the_best_mixtures_at_201_budgets(points, budget):
    grid = [budget * i / 200 for i in range(201)]
    heights = [slow_height(points, x) for x in grid]
    slow = sum((a + b) / 2 * budget / 200 for a, b in itertools.pairwise(heights))
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
        grid = np.linspace(0, 2, 201)
        top = every[every[:, 1].argmax()]
        heights = np.min([-(n0 * grid + c) / n1 for n0, n1, c in upper], axis=0)
        heights = np.where(grid >= top[0], top[1], heights)
        assert frontier_area(points[:, 0], points[:, 1], 2.0) == pytest.approx(np.trapezoid(heights, grid), abs=1e-9)
