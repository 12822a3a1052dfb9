import numpy as np
import pytest
import torch

from evaluators.preference.sentiment.model import END, FIRST_OUTPUT, PAD, UNKNOWN, LanguageModel, ModelSize
from evaluators.preference.sentiment.output_layer import token_logps
from evaluators.preference.sentiment.reward import SentimentReward, accuracy, count_features, fit_reward
from evaluators.preference.sentiment.vocabulary import EncodedTexts

SIZE = ModelSize(vocabulary=30, width=16, layers=2, heads=2, context=12)
PROMPT = 4


def model(seed=0, scale=1.0):
    made = LanguageModel(SIZE, torch.Generator().manual_seed(seed))
    with torch.no_grad():  # far from uniform, so that mistakes show
        made.embedding.mul_(20 * scale)
        made.output_bias.normal_(generator=torch.Generator().manual_seed(seed + 1))
        made.output_bias[0] += 4.0  # many responses end early
    return made


def drawn(policy, n=200, seed=3):
    noise = torch.Generator().manual_seed(seed)
    prompts = torch.randint(3, SIZE.vocabulary, (n, PROMPT), generator=noise)
    return policy.sample(prompts, torch.rand(n, SIZE.context - PROMPT, generator=noise))


def test_initial_weights_come_from_the_generator_alone():
    before = torch.get_rng_state()
    one, two, other = (LanguageModel(SIZE, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.embedding, other.embedding)


def test_cached_sampling_reports_the_log_probs_of_the_full_forward_pass():
    policy = model()
    tokens, logps, states = drawn(policy)
    torch.testing.assert_close(logps, policy.token_logps(tokens, PROMPT).detach(), atol=2e-5, rtol=1e-5)
    assert logps.std() > 0.1
    expected, running = policy.response_states(tokens, PROMPT).detach(), tokens[:, PROMPT:] != PAD
    torch.testing.assert_close(states[running], expected[running], atol=2e-5, rtol=1e-5)


def test_responses_stop_at_the_end_token_and_hold_no_special_ones():
    tokens, logps, _ = drawn(model())
    response = tokens[:, PROMPT:]
    after_end = (response == END).cumsum(1) - (response == END).long() > 0
    assert 20 < after_end.any(1).sum() < 200
    assert torch.equal(response == PAD, after_end)
    assert not (response == UNKNOWN).any()
    assert (logps[after_end] == 0).all()


def test_sampled_frequencies_match_the_distribution():
    policy = model()
    prompt = torch.tensor([[3, 4, 5, 6]])
    n = 20_000
    uniforms = torch.rand(n, 1, generator=torch.Generator().manual_seed(0))
    tokens = policy.sample(prompt.expand(n, -1), uniforms).tokens
    expected = policy.logits(policy.hidden(prompt)[:, -1]).softmax(-1)[0].detach()
    found = torch.bincount(tokens[:, -1] - FIRST_OUTPUT, minlength=len(expected)) / n
    assert (found - expected).abs().max() < 0.015


def test_log_probs_and_their_gradients_are_those_of_a_plain_log_softmax():
    policy, plain = model(), model()
    tokens = drawn(policy, n=20).tokens
    weights = torch.linspace(-1, 1, 20)
    found = policy.token_logps(tokens, PROMPT).sum(1)
    (found * weights).sum().backward()
    logits = plain.logits(plain.hidden(tokens[:, :-1])[:, PROMPT - 1 :])
    targets = tokens[:, PROMPT:]
    picked = logits.log_softmax(-1).gather(-1, (targets - FIRST_OUTPUT).clamp_min(0).unsqueeze(-1)).squeeze(-1)
    expected = (picked * (targets != PAD)).sum(1)
    torch.testing.assert_close(found, expected)
    (expected * weights).sum().backward()
    for (name, a), b in zip(policy.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4, msg=name)
        assert a.grad.abs().max() > 0


def test_an_output_layer_takes_the_place_of_the_models_own():
    policy, other = model(), model(seed=7)
    uniforms = torch.rand(50, 8, generator=torch.Generator().manual_seed(2))
    prompts = torch.randint(3, SIZE.vocabulary, (50, PROMPT), generator=torch.Generator().manual_seed(4))
    own, same = policy.sample(prompts, uniforms), policy.sample(prompts, uniforms, policy.output_layer)
    torch.testing.assert_close(own, same)
    tokens, logps, states = policy.sample(prompts, uniforms, other.output_layer)
    assert not torch.equal(tokens, own.tokens)
    found = token_logps(states, tokens[:, PROMPT:], other.output_layer)
    torch.testing.assert_close(found.float(), logps, atol=2e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def fitted():
    """A reward fitted on made-up token sequences in which token 5 is good, 6 is bad and the pair (7, 8) is good."""
    rng = np.random.default_rng(0)
    parts, labels = [], []
    for i in range(300):
        ids = rng.choice([1, 3, 4, 9, 10, 11, 12], rng.integers(5, 30))
        good = bool(i % 2)
        if rng.random() < 0.7:
            ids = np.insert(ids, rng.integers(len(ids)), 5 if good else 6)
        if good:
            ids = np.insert(ids, 2, [7, 8])
        parts.append(ids)
        labels.append(good)
    texts = EncodedTexts(np.concatenate(parts), np.concatenate([[0], np.cumsum([len(p) for p in parts])]))
    return texts, np.array(labels)


@pytest.mark.parametrize("bigrams", [0, 20])
def test_the_stored_reward_equals_the_decision_function(fitted, bigrams):
    texts, labels = fitted
    reward, fit = fit_reward(texts, labels, 13, bigrams)
    padded = torch.zeros(len(texts), 40, dtype=torch.int64)
    for i in range(len(texts)):
        padded[i, : len(texts[i])] = torch.from_numpy(texts[i])
    again = SentimentReward.from_tensors(reward.tensors())
    np.testing.assert_allclose(again.log_odds(padded).numpy(), fit["decision"], atol=1e-9)
    assert accuracy(reward, texts, labels) == np.mean((fit["decision"] > 0) == labels) > 0.8
    assert np.std(fit["decision"]) > 0.5


def test_bigrams_do_not_reach_across_texts():
    bigrams = np.array([5 * 13 + 6, 7 * 13 + 8])
    two = EncodedTexts(np.array([5, 6, 7, 8]), np.array([0, 1, 1, 4]))
    counts = count_features(two, 13, bigrams).toarray()[:, 13:]
    assert counts.tolist() == [[0, 0], [0, 0], [0, 1]]


def test_standardised_rewards_have_mean_zero_and_deviation_one(fitted):
    texts, labels = fitted
    reward, _ = fit_reward(texts, labels, 13, 20)
    tokens = torch.from_numpy(texts.ids[:600].copy()).view(60, 10)
    scored = reward.standardised(reward.log_odds(tokens))(tokens)
    assert float(scored.mean()) == pytest.approx(0, abs=1e-12)
    assert float(scored.std()) == pytest.approx(1)
