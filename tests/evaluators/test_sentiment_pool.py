"""Importance weights against a model whose responses can all be enumerated."""

import itertools

import numpy as np
import pytest
import torch

from evaluators.preference.gradients import normalised
from evaluators.preference.sentiment.model import END, PAD, LanguageModel, ModelSize
from evaluators.preference.sentiment.output_layer import token_logps
from evaluators.preference.sentiment.pool import Pool, Weights, beats, mean_of_others
from evaluators.preference.sentiment.sampling import sample
from evaluators.preference.sentiment.steps import Responses, Steps, WordValues, steps_of

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
    drawn = [
        sample(model, prompts, noise, LENGTH, layer).tokens.view(PROMPTS, -1, 1 + LENGTH) for layer in (None, fixed)
    ]
    tokens = torch.cat(drawn, 1).flatten(0, 1)
    responses = Responses.of(model, tokens, 1)
    logps = [token_logps(responses.states, responses.targets, x) for x in (model.output_layer, fixed)]
    rewards = reward_of(tokens).view(PROMPTS, -1)
    baselines = mean_of_others(rewards[:, None, : SAMPLES // 2].expand(-1, SAMPLES, -1))
    return Pool(responses, rewards, baselines, *logps)


def steps_on(toy, pool, values, scale=1.0) -> Steps:
    start = toy[0].output_layer
    return steps_of(pool.responses, start, [scale * (toy[2] - start)], values)[0]


def table_of(*of_words) -> WordValues:
    """Values of the end token and of the two words, whatever came before."""
    return WordValues(torch.tensor(of_words).expand(5, -1).clone())


NOTHING, KNOWN, WRONG = table_of(0.0, 0.0, 0.0), table_of(0.0, 1.0, -1.0), table_of(0.0, -3.0, 2.0)


def exact(toy) -> tuple[float, float, float]:
    """Reward above the SFT model's, win rate and KL of the policy, as sums over all responses."""
    model, _, layer = toy
    ended = [(*words, END) for n in range(LENGTH) for words in itertools.product(WORDS, repeat=n)]
    every = [(3, *r, *(PAD,) * (LENGTH - len(r))) for r in [*ended, *itertools.product(WORDS, repeat=LENGTH)]]
    tokens = torch.tensor(every)
    responses = Responses.of(model, tokens, 1)
    log_p, log_q = (token_logps(responses.states, responses.targets, x).sum(1) for x in (layer, model.output_layer))
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-5)
    p, q, rewards = log_p.exp(), log_q.exp(), reward_of(tokens)
    wins = p @ beats(rewards[:, None], rewards[None]) @ q
    return float((p - q) @ rewards), float(wins), float(p @ (log_p - log_q))


@pytest.mark.parametrize("values", [NOTHING, KNOWN, WRONG], ids=["nothing", "known", "wrong"])
def test_weighted_means_are_those_over_all_responses(toy, values):
    """Whatever is taken for the value of a word: it moves noise, not the mean."""
    gain, win, kl = exact(toy)
    assert abs(gain) > 0.1
    assert kl > 0.05
    pools = [pool_of(toy, seed) for seed in range(8)]
    steps = [steps_on(toy, pool, values) for pool in pools]
    weights = [Weights.of(pool, s.logps) for pool, s in zip(pools, steps, strict=True)]
    measured = list(zip(weights, steps, pools, strict=True))
    gains = [w.gain(s, values.drawn(p.responses), p.gains()) for w, s, p in measured]
    for expected, estimates in ((gain, gains), (win, [w.mean(p.wins()) for w, _, p in measured])):
        found, errors = [e.mean for e in estimates], [e.error for e in estimates]
        assert np.mean(found) == pytest.approx(expected, abs=4 * np.mean(errors) / 8**0.5)
        assert 0.4 < np.std(found, ddof=1) / np.mean(errors) < 2.0
    found = [w.kl(s) for w, s, _ in measured]
    assert np.mean(found) == pytest.approx(kl, abs=4 * np.std(found, ddof=1) / 8**0.5)


def test_the_kl_is_less_noisy_than_the_mean_of_weighted_log_ratios(toy):
    own, whole = [], []
    for seed in range(12):
        pool = pool_of(toy, seed)
        steps = steps_on(toy, pool, NOTHING)
        weights = Weights.of(pool, steps.logps)
        own.append(weights.kl(steps))
        whole.append(float((weights.whole * (steps.logps - pool.sft_logps).sum(1)).mean()))
    assert np.std(own) < 0.5 * np.std(whole)


def test_the_kl_is_never_negative(toy):
    pool = pool_of(toy)
    for scale in (0.0, 1e-4, -0.5, 1.0, 3.0):
        steps = steps_on(toy, pool, NOTHING, scale)
        assert Weights.of(pool, steps.logps).kl(steps) >= 0


def test_equal_weights_use_the_whole_pool_and_one_weight_uses_one_response():
    def share(weights):
        return Weights(torch.tensor(weights, dtype=torch.float64).view(-1, 1)).share()

    assert share([[0.3, 0.3], [0.3, 0.3]]) == pytest.approx(1.0)
    assert share([[1.0, 0.0], [0.0, 0.0]]) == pytest.approx(0.25)
    assert share([[1.0, 1.0], [0.0, 0.0]]) == pytest.approx(0.5)


def test_who_drew_half_of_the_pool_has_weights_that_differ_little(toy):
    pool = pool_of(toy)
    for logps in (pool.sft_logps, pool.fixed_logps):
        assert Weights.of(pool, logps).share() > 0.5


def test_weights_beyond_the_reach_of_numbers_keep_their_means(toy):
    """A policy that gives all responses next to nothing, one of them less little than the others."""
    pool = pool_of(toy)
    logps = torch.full_like(pool.sft_logps, -400.0)
    logps[5] = -300.0
    weights = Weights.of(pool, logps)
    assert weights.share() == pytest.approx(1 / logps.shape[0])
    assert weights.mean(pool.gains()).mean == pytest.approx(float(pool.gains().flatten()[5]))
    assert Weights.of(pool, torch.full_like(logps, torch.nan)).share() == 0


def test_a_response_is_not_compared_with_itself():
    rewards = torch.tensor([[1.0, 2.0, 5.0, 2.0]], dtype=torch.float64)  # two of the SFT model, two of the fixed policy
    nothing = torch.zeros(4, 1)
    pool = Pool(Responses(torch.zeros(4, 1, 1), nothing, nothing), rewards, rewards, nothing, nothing)
    assert mean_of_others(pool.sft_rewards()[:, None].expand(-1, 4, -1)).tolist() == [[2.0, 1.0, 1.5, 1.5]]
    assert pool.wins().tolist() == [[0.0, 1.0, 1.0, 0.75]]


def test_a_thinned_pool_keeps_whole_prompts(toy):
    pool = pool_of(toy)
    thin = pool.thinned(5)
    found, whole = (steps_on(toy, p, KNOWN).logps.view(-1, SAMPLES, LENGTH) for p in (thin, pool))
    assert torch.equal(found, whole[::5])
    assert torch.equal(thin.sft_logps.view_as(found), pool.sft_logps.view_as(whole)[::5])
    assert torch.equal(thin.gains(), pool.gains()[::5])


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e30])
def test_gradients_keep_their_direction_and_lose_their_size(scale):
    gradient = torch.tensor([[[3.0, 4.0]], [[0.0, -2.0]], [[0.0, 0.0]]]) * scale
    torch.testing.assert_close(normalised(gradient, (1, 2)), torch.tensor([[[0.6, 0.8]], [[0.0, -1.0]], [[0.0, 0.0]]]))
