import numpy as np
import pytest
import torch

from evaluators.options import OptionsError
from evaluators.preference.sentiment import SentimentEvaluator
from evaluators.preference.sentiment.preparation import Prepared
from evaluators.preference.sentiment.trial import evaluate, frontier_value, training_set
from sandbox.failure import CandidateError, FailureKind
from sandbox.server import OracleServer
from tests.support.sentiment_setup import oracle_of


@pytest.fixture(scope="module")
def server():
    with OracleServer() as server:
        yield server


def prepared_of(evaluator) -> Prepared:
    return evaluator._prepared


def trial(evaluator, server, seed, objective="dpo"):
    with oracle_of(server, objective) as oracle:
        return evaluator.run(oracle, seed)


def test_preparation_states_the_accuracy_of_its_reward(evaluator):
    facts = evaluator.prepare()
    assert 0.6 < facts["reward_accuracy"] < 1.0
    assert facts["sft_held_out_nats"] < np.log(400) - 0.5  # it learnt more than nothing
    assert abs(facts["sft_reward"]) < 5 * facts["sft_reward_stderr"]


def test_report_holds_what_the_class_promises(evaluator, server):
    report = trial(evaluator, server, 0)
    assert [m.name for m in report.metrics] == [m.name for m in evaluator.metrics]
    assert set(report.arrays) == set(evaluator.arrays_doc)
    assert report.arrays["curve_loss"].shape == (2, 5)
    assert report.oracle_calls == 10
    assert report.arrays["curve_margin"][:, 0] == pytest.approx([0, 0], abs=1e-3)  # it starts as the SFT model
    assert report.arrays["curve_loss"][:, 0] == pytest.approx(np.log(2), abs=1e-3)
    assert (report.arrays["kl"] > 0).all()
    assert report.metric("reward_at_kl").stderr >= 0


def test_a_seed_fixes_every_number_and_another_changes_them(evaluator, server):
    one, again, other = trial(evaluator, server, 1), trial(evaluator, server, 1), trial(evaluator, server, 2)
    assert one.metrics == again.metrics
    for name in one.arrays:
        np.testing.assert_array_equal(one.arrays[name], again.arrays[name])
    assert one.metrics != other.metrics


def test_trials_draw_nothing_from_the_global_generator_and_leave_the_threads(evaluator, server):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    trial(evaluator, server, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_sft_model_has_no_divergence_and_no_gain_over_itself(evaluator):
    prepared = prepared_of(evaluator)
    device = torch.device("cpu")
    scores = evaluate(prepared.model(device), prepared.model(device), prepared, 0)
    assert (scores.kl == 0).all()
    assert (scores.log_ratio == 0).all()
    assert abs(scores.gain.mean()) < 5 * scores.gain.std() / len(scores.gain) ** 0.5
    assert abs(scores.win.mean() - 0.5) < 5 * scores.win.std() / len(scores.win) ** 0.5


def test_reference_log_probs_are_those_of_the_sft_model(evaluator):
    prepared = prepared_of(evaluator)
    model = prepared.model(torch.device("cpu"))
    tokens = prepared.pair_tokens.flatten(0, 1)
    found = model.sequence_logps(tokens, evaluator.options.prompt_tokens).detach().view(-1, 2)
    torch.testing.assert_close(found, prepared.pair_logps, atol=1e-4, rtol=1e-5)
    assert (tokens.view(-1, 2, 8)[:, 0, :2] == tokens.view(-1, 2, 8)[:, 1, :2]).all()  # one prompt for both


def test_labels_follow_bradley_terry(evaluator):
    prepared, options = prepared_of(evaluator), evaluator.options
    gaps = (prepared.pair_rewards[:, 0] - prepared.pair_rewards[:, 1]).abs()
    expected = float(torch.sigmoid(-options.label_sharpness * gaps).mean())
    flipped = [training_set(prepared, options, seed).flipped for seed in range(60)]
    assert np.mean(flipped) == pytest.approx(expected, abs=5 * np.std(flipped) / 60**0.5)


def test_praise_scores_above_scorn(evaluator):
    prepared = prepared_of(evaluator)
    texts = ["a great movie and the best story", "a bad movie and the worst story"]
    tokens = torch.tensor([prepared.vocabulary.encode(t) for t in texts])
    praise, scorn = prepared.reward(tokens).tolist()
    assert praise > scorn + 1.0


def test_too_few_prompts_is_one_clear_line(small, tmp_path):
    with pytest.raises(OptionsError, match="100000 are needed; give more texts"):
        SentimentEvaluator({**small, "eval_prompts": 100_000}, tmp_path).prepare()


def test_a_diverging_policy_is_the_candidates_failure(small, sentiment_cache, server):
    wild = SentimentEvaluator({**small, "lr": 1e30, "steps": 4}, sentiment_cache)
    with pytest.raises(CandidateError) as caught:
        trial(wild, server, 0)
    assert caught.value.failure.kind is FailureKind.NON_FINITE


def test_frontier_value_averages_prompts_before_the_hull():
    kl = np.array([[0.5, 1.5], [3.0, 3.0]])
    gain = np.array([[1.0, 1.0], [1.5, 2.5]])
    assert frontier_value(kl, gain, 1.0) == 1.0
    assert frontier_value(kl, gain, 2.0) == 1.5
    assert frontier_value(kl, -gain, 2.0) == 0.0


@pytest.mark.slow
def test_default_options_reach_the_quality_bar(server, tmp_path):
    evaluator = SentimentEvaluator(None, tmp_path)
    facts = evaluator.prepare()
    assert facts["reward_accuracy"] > 0.87
    assert facts["sft_held_out_nats"] < 4.6
    report = trial(evaluator, server, 0)
    score = report.metric("reward_at_kl")
    assert score.value > 8 * score.stderr
    assert score.value > 0.25
    assert report.metric("win_rate_at_kl").value > 0.55
    kl = report.arrays["kl"]
    assert (np.diff(kl) < 0).all()  # a larger beta stays closer
    assert (kl > 0.05).all()
    assert kl[-1] < 2.0
