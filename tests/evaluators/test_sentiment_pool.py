"""Importance weights against a model whose responses can all be enumerated."""

import itertools

import numpy as np
import pytest
import torch

from evaluators.preference.gradients import normalised
from evaluators.preference.sentiment.model import END, PAD, LanguageModel, ModelSize
from evaluators.preference.sentiment.pool import Pool, Weights, beats
from evaluators.preference.sentiment.sampling import policy_logps, sample, states_of

WORDS, LENGTH = (3, 4), 3  # besides END: 2 + 4 + 8 responses and the empty one
PROMPTS, SAMPLES = 500, 8


@pytest.fixture(scope="module")
def toy():
    """A model of three outputs, and the output layers of a fixed policy and of the policy to be measured."""
    size = ModelSize(vocabulary=5, width=8, layers=1, heads=2, context=1 + LENGTH)
    made = LanguageModel(size, torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.embedding.mul_(20.0)
    noise = torch.Generator().manual_seed(1)
    layers = [made.output_layer + 0.25 * torch.randn(made.output_layer.shape, generator=noise) for _ in range(2)]
    return made, *layers


def reward_of(tokens):
    """Made up: threes count, fours count against, and a first word counts twice."""
    response = tokens[:, 1:]
    value = (response == 3).double() - (response == 4).double()
    return value.sum(1) + value[:, 0]


def pool_of(toy, seed=0) -> Pool:
    model, fixed, _ = toy
    prompts = torch.full((PROMPTS * SAMPLES // 2, 1), 3)
    noise = torch.Generator().manual_seed(seed)
    drawn = [sample(model, prompts, noise, LENGTH, layer)[0].view(PROMPTS, -1, 1 + LENGTH) for layer in (None, fixed)]
    tokens = torch.cat(drawn, 1).flatten(0, 1)
    states, targets = states_of(model, tokens, 1), tokens[:, 1:]
    logps = [policy_logps(states, targets, x).view(PROMPTS, -1) for x in (model.output_layer, fixed)]
    return Pool(states, targets, reward_of(tokens).view(PROMPTS, -1), *logps)


def exact(toy) -> tuple[float, float, float]:
    """Reward above the SFT model's, win rate and KL of the policy, as sums over all responses."""
    model, _, layer = toy
    ended = [(*words, END) for n in range(LENGTH) for words in itertools.product(WORDS, repeat=n)]
    every = [(3, *r, *(PAD,) * (LENGTH - len(r))) for r in [*ended, *itertools.product(WORDS, repeat=LENGTH)]]
    tokens = torch.tensor(every)
    states, targets = states_of(model, tokens, 1), tokens[:, 1:]
    log_p, log_q = (policy_logps(states, targets, x) for x in (layer, model.output_layer))
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-5)
    p, q, rewards = log_p.exp(), log_q.exp(), reward_of(tokens)
    wins = p @ beats(rewards[:, None], rewards[None]) @ q
    return float((p - q) @ rewards), float(wins), float(p @ (log_p - log_q))


def test_weighted_means_are_those_over_all_responses(toy):
    gain, win, kl = exact(toy)
    assert abs(gain) > 0.1
    assert kl > 0.05
    pools = [pool_of(toy, seed) for seed in range(8)]
    weights = [Weights.of(pool, pool.logps(toy[2])) for pool in pools]
    for expected, values in ((gain, Pool.gains), (win, Pool.wins)):
        found, errors = zip(*[w.mean(values(p)) for w, p in zip(weights, pools, strict=True)], strict=True)
        assert np.mean(found) == pytest.approx(expected, abs=4 * np.mean(errors) / 8**0.5)
        assert 0.4 < np.std(found, ddof=1) / np.mean(errors) < 2.0
    found = [w.kl() for w in weights]
    assert np.mean(found) == pytest.approx(kl, abs=4 * np.std(found, ddof=1) / 8**0.5)


def test_the_kl_by_weights_is_never_negative(toy):
    pool = pool_of(toy)
    for scale in (0.0, 1e-4, -0.5, 1.0, 3.0):
        layer = toy[0].output_layer + scale * (toy[2] - toy[0].output_layer)
        assert Weights.of(pool, pool.logps(layer)).kl() >= -1e-9


def test_equal_weights_use_the_whole_pool_and_one_weight_uses_one_response():
    def share(weights):
        return Weights(torch.tensor(weights, dtype=torch.float64), torch.ones(2, 2), torch.zeros(2, 2)).share()

    assert share([[0.3, 0.3], [0.3, 0.3]]) == pytest.approx(1.0)
    assert share([[1e-200, 1e-200], [1e-200, 1e-200]]) == pytest.approx(1.0)
    assert share([[1.0, 0.0], [0.0, 0.0]]) == pytest.approx(0.25)
    assert share([[1.0, 1.0], [0.0, 0.0]]) == pytest.approx(0.5)


def test_who_drew_half_of_the_pool_has_weights_of_at_most_two(toy):
    pool = pool_of(toy)
    for logps in (pool.sft_logps, pool.fixed_logps):
        assert Weights.of(pool, logps).policy.max() <= 2.0
        assert Weights.of(pool, logps).share() > 0.5


def test_a_response_is_not_compared_with_itself():
    rewards = torch.tensor([[1.0, 2.0, 5.0, 2.0]], dtype=torch.float64)  # two of the SFT model, two of the fixed policy
    pool = Pool(torch.zeros(4, 1, 1), torch.zeros(4, 1), rewards, rewards, rewards)
    assert pool.gains().tolist() == [[-1.0, 1.0, 3.5, 0.5]]
    assert pool.wins().tolist() == [[0.0, 1.0, 1.0, 0.75]]


def test_a_thinned_pool_keeps_whole_prompts(toy):
    pool = pool_of(toy)
    thin = pool.thinned(5)
    assert torch.equal(thin.logps(toy[2]), pool.logps(toy[2])[::5])
    assert torch.equal(thin.gains(), pool.gains()[::5])


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e30])
def test_gradients_keep_their_direction_and_lose_their_size(scale):
    gradient = torch.tensor([[[3.0, 4.0]], [[0.0, -2.0]], [[0.0, 0.0]]]) * scale
    torch.testing.assert_close(normalised(gradient, (1, 2)), torch.tensor([[[0.6, 0.8]], [[0.0, -1.0]], [[0.0, 0.0]]]))
