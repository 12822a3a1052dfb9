"""Output layers and what policies do token by token, against plain log-softmax and autograd."""

import pytest
import torch

from evaluators.preference.sentiment.model import END, FIRST_OUTPUT, PAD, LanguageModel, ModelSize
from evaluators.preference.sentiment.output_layer import response_logps, token_logps
from evaluators.preference.sentiment.pool import Weights
from evaluators.preference.sentiment.reward import SentimentReward
from evaluators.preference.sentiment.steps import Responses, WordValues, steps_of

SIZE = ModelSize(vocabulary=30, width=16, layers=2, heads=2, context=12)
PROMPT, COUNT = 4, 4000


@pytest.fixture(scope="module")
def model():
    made = LanguageModel(SIZE, torch.Generator().manual_seed(0))
    with torch.no_grad():  # far from uniform, so that mistakes show
        made.embedding.mul_(20)
        made.output_bias.normal_(generator=torch.Generator().manual_seed(1))
        made.output_bias[0] += 4.0  # many responses end early
    return made


@pytest.fixture(scope="module")
def values():
    return WordValues(torch.randn(30, 30 - FIRST_OUTPUT, generator=torch.Generator().manual_seed(5)))


def drawn(model, layer, count=COUNT) -> Responses:
    prompts = torch.randint(3, SIZE.vocabulary, (count, PROMPT), generator=torch.Generator().manual_seed(4))
    uniforms = torch.rand(count, 8, generator=torch.Generator().manual_seed(3))
    return Responses.drawn(model.sample(prompts, uniforms, layer))


def batch():
    """Layers of several policies, and responses of which some have ended."""
    noise = torch.Generator().manual_seed(2)
    layers = torch.randn(3, 11, 5, generator=noise, dtype=torch.float64)
    states = torch.randn(6, 4, 4, generator=noise, dtype=torch.float64)
    targets = torch.randint(FIRST_OUTPUT, FIRST_OUTPUT + 11, (6, 4), generator=noise)
    targets[0, 2:], targets[1, 1:] = PAD, PAD
    return layers, states, targets


def plain(states, targets, layer):
    logits = states @ layer[:, :-1].T + layer[:, -1]
    outputs = (targets - FIRST_OUTPUT).clamp_min(0).unsqueeze(-1)
    return (logits.log_softmax(-1).gather(-1, outputs).squeeze(-1) * (targets != PAD)).sum(1)


def test_log_probs_and_their_gradients_are_those_of_a_plain_log_softmax():
    layers, states, targets = batch()
    weights = torch.linspace(-1, 1, 6, dtype=torch.float64)
    for layer in layers:
        found = []
        for function in (response_logps, plain):
            given = layer.clone().requires_grad_(True)
            logps = function(states, targets, given)
            found.append((logps.detach(), *torch.autograd.grad((logps * weights).sum(), given)))
        torch.testing.assert_close(*found)
        torch.testing.assert_close(token_logps(states, targets, layer).sum(1), found[0][0])


def test_steps_are_sums_over_the_next_token(model, values):
    start = model.output_layer
    change = 0.3 * start
    responses = drawn(model, start + change, 50)
    (steps,) = steps_of(responses, start, [change], values)
    log_p, log_q = (
        (responses.states @ layer[:, :-1].T + layer[:, -1]).log_softmax(-1).double()
        for layer in (start + change, start)
    )
    running = responses.targets != PAD
    expected = (log_p.exp() * values.table[responses.previous].double()).sum(-1) * running
    torch.testing.assert_close(steps.expected, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        steps.divergence, (log_p.exp() * (log_p - log_q)).sum(-1) * running, atol=1e-5, rtol=1e-4
    )
    logps = token_logps(responses.states, responses.targets, start + change)
    torch.testing.assert_close(steps.logps, logps, atol=1e-5, rtol=1e-5)
    assert (steps.logps[~running] == 0).all()
    assert (~running).sum() > 0


def test_policies_measured_at_once_are_those_measured_alone(model, values):
    start = model.output_layer
    responses = drawn(model, start, 50)
    changes = [0.3 * start, -0.1 * start, 0 * start]
    for steps, change in zip(steps_of(responses, start, changes, values), changes, strict=True):
        (alone,) = steps_of(responses, start, [change], values)
        assert all(
            torch.equal(getattr(steps, name), getattr(alone, name)) for name in ("logps", "divergence", "expected")
        )
    assert steps.divergence.max() < 1e-5  # the SFT model from itself


def test_the_kl_per_token_agrees_with_the_mean_log_ratio_and_is_less_noisy(model, values):
    start, layer = model.output_layer, 1.25 * model.output_layer
    responses = drawn(model, layer)
    (steps,) = steps_of(responses, start, [layer - start], values)
    log_ratio = (steps.logps - token_logps(responses.states, responses.targets, start)).sum(1)
    noise = ((steps.divergence.sum(1) - log_ratio).std() / COUNT**0.5).item()
    assert Weights.own(steps).kl(steps) == pytest.approx(log_ratio.mean().item(), abs=4 * noise)
    assert log_ratio.mean() > 10 * noise
    assert steps.divergence.sum(1).std() < 0.7 * log_ratio.std()


def test_word_values_are_the_linear_part_of_the_reward(model):
    words = SIZE.vocabulary
    noise = torch.Generator().manual_seed(6)
    codes = torch.tensor([3 * words + 4, 4 * words + 3])
    idf, coef = 1 + torch.rand(2, words + 2, generator=noise, dtype=torch.float64)
    reward = SentimentReward(codes, idf, coef * torch.tensor([1.0, -1.0]).repeat(words // 2 + 1), 0.0, words)
    responses = drawn(model, model.output_layer, 2000)
    tokens = torch.cat([responses.previous[:, :1], responses.targets], 1)
    rewards = reward(tokens)
    values = WordValues.fitted(reward, responses, rewards)
    single, pair = (reward.coef * reward.idf)[4], (reward.coef * reward.idf)[words]
    table = values.table[:, 4 - FIRST_OUTPUT]
    assert float(table[3] / table[7]) == pytest.approx(float((single + pair) / single), rel=1e-5)
    assert (values.table[:, END - FIRST_OUTPUT] == 0).all()
    sums = values.drawn(responses).sum(1)
    assert torch.corrcoef(torch.stack([sums, rewards]))[0, 1] > 0.7
    residual = rewards - sums  # the slope is that of least squares
    assert float(((sums - sums.mean()) * (residual - residual.mean())).mean()) == pytest.approx(0, abs=1e-6)
