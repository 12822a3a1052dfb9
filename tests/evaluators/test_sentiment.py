import numpy as np
import pytest
import torch

from evaluators.options import OptionsError
from evaluators.preference.contract import PAIRS
from evaluators.preference.sentiment import SentimentEvaluator
from evaluators.preference.sentiment.pool import Weights
from evaluators.preference.sentiment.preparation import Prepared
from evaluators.preference.sentiment.sampling import generator
from evaluators.preference.sentiment.scoring import ACCEPTED, Scorer, best_over_betas, height_at
from evaluators.preference.sentiment.steps import WordValues, steps_of
from evaluators.preference.sentiment.training import TrainingSet, training_set
from sandbox.candidate import Candidate
from sandbox.failure import CandidateError, FailureKind
from sandbox.server import OracleServer
from tests.support.inline_oracle import InlineOracle
from tests.support.rates import RATES
from tests.support.sentiment_setup import oracle_of

CPU = torch.device("cpu")
MARGIN = "(policy_chosen_logps - reference_chosen_logps - policy_rejected_logps + reference_rejected_logps)"
NAMES = "policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta, progress"


@pytest.fixture(scope="module")
def server():
    with OracleServer() as server:
        yield server


def prepared_of(evaluator) -> Prepared:
    return evaluator._prepared


def trial(evaluator, server, seed, objective="dpo"):
    with oracle_of(server, objective) as oracle:
        return evaluator.run(oracle, seed)


def inline(expression: str) -> InlineOracle:
    """A loss made of z, beta times the margin, and of DPO's loss of it, run in this process."""
    source = (
        f"import math\nimport torch\n\ndef loss({NAMES}):\n    z = beta * {MARGIN}\n"
        f"    dpo = -torch.nn.functional.logsigmoid(z)\n    return {expression}\n"
    )
    return InlineOracle(Candidate(PAIRS.name, source), PAIRS)


def pairs_of(evaluator, seed) -> TrainingSet:
    prepared = prepared_of(evaluator)
    noise = generator(seed, "pairs")
    plan = evaluator.options.plan
    return training_set(prepared.model(CPU), prepared.train_prompts, prepared.reward, plan, noise)


def test_preparation_states_the_accuracy_of_its_reward(evaluator):
    facts = evaluator.prepare()
    assert 0.6 < facts["reward_accuracy"] < 1.0
    assert facts["sft_held_out_nats"] < np.log(400) - 0.5  # it learnt more than nothing
    assert facts["fixed_kl"] == pytest.approx(evaluator.options.pool_kl, rel=0.1)
    assert 0.4 < facts["sft_share"] < 1.0
    assert 0.4 < facts["fixed_share"] < 1.0


def test_report_holds_what_the_class_promises(evaluator, server):
    report = trial(evaluator, server, 0)
    assert [m.name for m in report.metrics] == [m.name for m in evaluator.metrics]
    assert set(report.arrays) == set(evaluator.arrays_doc)
    assert report.arrays["curve_loss"].shape == (3, 32)
    assert report.oracle_calls == 32  # all betas in one call
    assert report.arrays["curve_margin"][:, 0] == pytest.approx([0, 0, 0], abs=1e-3)  # it starts as the SFT model
    assert report.arrays["curve_loss"][:, 0] == pytest.approx(np.log(2), abs=1e-3)
    assert report.arrays["kl"] == pytest.approx(evaluator.options.kl_budget, rel=0.1)
    assert report.arrays["kl_sampled"] == pytest.approx(evaluator.options.kl_budget, rel=0.5)
    assert (report.arrays["effective_share"] > 0.3).all()
    assert report.metric("refused").value == 0
    assert report.metric("reward_at_kl").stderr > 0


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


def test_seeds_draw_pairs_of_their_own(evaluator):
    one, again, other = (pairs_of(evaluator, seed) for seed in (0, 0, 1))
    assert torch.equal(one.targets, again.targets)
    shared = (one.targets.flatten(1)[:, None] == other.targets.flatten(1)[None]).all(2).any(1)
    assert shared.double().mean() < 0.05


def test_all_losses_and_seeds_meet_one_pool(evaluator, server):
    pool = prepared_of(evaluator).pool
    before = {name: tensor.clone() for name, tensor in pool.tensors().items()}
    for objective, seed in (("dpo", 0), ("hinge", 1)):
        trial(evaluator, server, seed, objective)
    assert prepared_of(evaluator).pool is pool
    assert all(torch.equal(before[name], tensor) for name, tensor in pool.tensors().items())


def test_reference_log_probs_are_those_of_the_sft_model(evaluator):
    prepared, data = prepared_of(evaluator), pairs_of(evaluator, 0)
    model, begin = prepared.model(CPU), evaluator.options.prompt_tokens
    picked = model.target_logps(data.states, data.targets) * (data.targets != 0)
    torch.testing.assert_close(picked.sum(2).double().detach(), data.logps, atol=1e-4, rtol=1e-5)
    prompts = prepared.eval_prompts.repeat_interleave(8, 0)
    full = model.token_logps(torch.cat([prompts, prepared.pool.responses.targets], 1), begin).detach().double()
    torch.testing.assert_close(full, prepared.pool.sft_logps, atol=1e-4, rtol=1e-5)


def test_known_values_of_words_take_noise_away(evaluator):
    prepared = prepared_of(evaluator)
    pool, start = prepared.pool, prepared.model(CPU).output_layer
    fitted = WordValues.fitted(prepared.reward, pool.sft_responses(), pool.sft_rewards().flatten())
    errors = []
    for values in (fitted, WordValues(0 * fitted.table), WordValues(-fitted.table)):
        (steps,) = steps_of(pool.responses, start, [0 * start], values)
        weights = Weights.of(pool, steps.logps)
        errors.append(weights.gain(steps, values.drawn(pool.responses), pool.gains()).error)
    assert errors[0] < 0.8 * errors[1] < 0.8 * errors[2]


def test_labels_follow_bradley_terry(evaluator):
    sharpness = evaluator.options.label_sharpness
    sets = [pairs_of(evaluator, seed) for seed in range(20)]
    gaps = torch.cat([(s.rewards[:, 0] - s.rewards[:, 1]).abs() for s in sets])
    expected = float(torch.sigmoid(-sharpness * gaps).mean())
    flipped = [s.flipped for s in sets]
    assert np.mean(flipped) == pytest.approx(expected, abs=5 * np.std(flipped) / 20**0.5)


def test_praise_scores_above_scorn(evaluator):
    prepared = prepared_of(evaluator)
    texts = ["a great movie and the best story", "a bad movie and the worst story"]
    tokens = torch.tensor([prepared.vocabulary.encode(t) for t in texts])
    praise, scorn = prepared.reward(tokens).tolist()
    assert praise > scorn + 1.0


def test_too_few_prompts_is_one_clear_line(small, tmp_path):
    with pytest.raises(OptionsError, match="100000 are needed; give more texts"):
        SentimentEvaluator({**small, "pool_prompts": 100_000}, tmp_path).prepare()


def test_a_loss_that_is_no_number_at_any_beta_is_the_candidates_failure(evaluator):
    with pytest.raises(CandidateError, match="at every beta") as caught:
        evaluator.run(inline("z / 0 * 0"), 0)
    assert caught.value.failure.kind is FailureKind.NON_FINITE


def test_a_beta_at_which_a_loss_is_no_number_has_no_point(evaluator):
    report, whole = (evaluator.run(inline(e), 0) for e in ("dpo if float(beta) < 1 else dpo / 0 * 0", "dpo"))
    assert report.metric("diverged").value == pytest.approx(1 / 3)
    assert np.isnan(report.arrays["reward"]).tolist() == [False, False, True]
    np.testing.assert_array_equal(report.arrays["reward"][:2], whole.arrays["reward"][:2])
    assert report.metric("reward_at_kl").value == max(
        0.0, *report.arrays["reward"][:2] * (0.2 / report.arrays["kl"][:2]) ** 0.5
    )


def test_a_loss_that_moves_nothing_scores_as_the_sft_model(evaluator):
    report = evaluator.run(inline("0.0 * z"), 0)
    assert report.metric("reward_at_kl").value == 0
    assert (report.arrays["factor"] == 0).all()
    assert report.arrays["kl"] == pytest.approx([0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("name", RATES)
def test_what_is_only_a_learning_rate_gains_nothing(evaluator, name):
    changed, plain = (evaluator.run(inline(e), 0).metric("reward_at_kl").value for e in (RATES[name], "dpo"))
    assert plain > 0.02
    assert changed == pytest.approx(plain, abs=1e-4)


def test_how_far_training_went_gains_nothing(small, sentiment_cache):
    """A loss of the margin alone has one direction: ten times the rate goes farther along it, and is scaled back."""
    near, far = (
        SentimentEvaluator({**small, "lr": lr, "betas": [0.4]}, sentiment_cache).run(inline("-z"), 0)
        for lr in (2e-3, 2e-2)
    )
    assert near.arrays["factor"][0] > 5 * far.arrays["factor"][0]
    assert far.metric("reward_at_kl").value == pytest.approx(near.metric("reward_at_kl").value, abs=0.02)


def test_weights_that_cannot_be_believed_are_refused_and_samples_count(small, sentiment_cache):
    strict = SentimentEvaluator({**small, "smallest_share": 0.999, "betas": [0.4]}, sentiment_cache)
    report = strict.run(inline("dpo"), 0)
    assert report.metric("refused").value == 1
    assert report.metric("effective_share").value < 0.999
    assert report.arrays["reward"] == report.arrays["reward_sampled"]
    assert report.arrays["kl"] == report.arrays["kl_sampled"]
    assert report.arrays["kl"][0] == pytest.approx(0.2, rel=0.1)  # scaled to the budget all the same


def test_a_policys_own_responses_say_what_the_pool_says(evaluator, server):
    for seed in range(3):
        arrays = trial(evaluator, server, seed).arrays
        for name in ("reward", "win_rate"):
            assert (arrays[f"{name}_stderr"] > 0).all()
        error = np.hypot(arrays["reward_stderr"], arrays["reward_sampled_stderr"])
        assert (abs(arrays["reward"] - arrays["reward_sampled"]) < 4 * error).all()
        assert (arrays["reward_sampled_stderr"] < 0.1).all()


def scorer_of(evaluator, small) -> Scorer:
    p, samples = prepared_of(evaluator), small["samples"]
    return Scorer(p.model(CPU), p.pool, p.reward, small["kl_budget"], 0.05, samples, p.eval_prompts)


def test_own_responses_are_compared_with_the_sft_models(evaluator, small):
    """Responses that count by themselves: gains and wins of a policy, and of the SFT model, which has none."""
    scorer = scorer_of(evaluator, small)
    start = scorer.sft.output_layer
    still, moved = scorer.place(torch.stack([start, 1.3 * start]), [True, True], 0)
    assert (still.factor, still.sampled.kl) == (0, pytest.approx(0, abs=1e-6))
    assert abs(still.sampled.gain) < 4 * still.sampled.gain_error
    assert abs(still.sampled.win - 0.5) < 4 * still.sampled.win_error
    assert abs(moved.sampled.win - moved.used.win) < 4 * np.hypot(moved.sampled.win_error, moved.used.win_error)


@pytest.mark.parametrize("scale", [1e-4, 30.0, 1e6], ids="{:g}".format)
def test_however_far_a_policy_went_it_is_placed_at_the_budget(evaluator, small, scale):
    """Also from where all weights, or the logits themselves, are no numbers."""
    scorer = scorer_of(evaluator, small)
    start = scorer.sft.output_layer
    noise = torch.Generator().manual_seed(0)
    change = torch.randn(start.shape, generator=noise) / 100
    near, far = (scorer.place((start + x * change)[None], [True], 0)[0] for x in (1.0, scale))
    assert near.used.kl == pytest.approx(small["kl_budget"], rel=ACCEPTED)
    assert far.used.kl == pytest.approx(small["kl_budget"], rel=ACCEPTED)
    assert far.used.gain == pytest.approx(near.used.gain, abs=0.02)


def test_a_policy_that_hardly_moved_gains_nothing(small, sentiment_cache):
    """No factor brings it to the budget; the root of KL would make anything of the noise that is left."""
    report = SentimentEvaluator({**small, "lr": 1e-9}, sentiment_cache).run(inline("dpo"), 0)
    assert report.metric("reward_at_kl").value == 0
    assert report.metric("win_rate_at_kl").value == 0.5
    assert report.metric("reward_at_kl_sampled").value == 0


def test_a_rate_at_which_all_logits_overflow_is_no_fault_of_the_machine(small, sentiment_cache):
    report = SentimentEvaluator({**small, "lr": 1e30}, sentiment_cache).run(inline("dpo"), 0)
    assert 0 <= report.metric("effective_share").value <= 1


def test_reversed_labels_at_other_betas_do_not_pay():
    """A low neighbour bends the parabola, whose top then lies above all that was measured."""
    betas = [0.06, 0.2, 0.6, 2.0, 6.0]
    honest, spoiled = np.full(5, 0.734), np.array([0.733, 0.733, 0.734, -0.835, -0.835])
    assert best_over_betas(betas, spoiled) <= 1.01 * best_over_betas(betas, honest)


def test_the_best_beta_is_the_top_of_a_parabola():
    betas = [0.1, 0.2, 0.4, 0.8]
    heights = np.array([1 - 0.05 * (np.log(b) - np.log(0.25)) ** 2 for b in betas])
    assert best_over_betas(betas, heights) == pytest.approx(1.0)
    assert best_over_betas([1.3 * b for b in betas], heights) == pytest.approx(1.0)
    assert best_over_betas(betas, np.array([0.1, 0.2, 0.3, 0.4])) == 0.4  # at the edge
    assert best_over_betas(betas, np.array([0.1, np.nan, 0.3, 0.2])) == 0.3  # a neighbour was not measured
    assert best_over_betas(betas, np.full(4, 0.3)) == 0.3
    assert best_over_betas([2.0], np.array([0.3])) == 0.3
    assert best_over_betas(betas, np.full(4, -0.3)) == 0.0  # the SFT model itself is at hand


def test_gains_are_brought_to_the_budget_along_the_root_of_kl():
    assert height_at(1.0, 1.0, 0.5) == 0.5
    assert height_at(1.0, 0.9604, 0.49) == pytest.approx(0.5)
    assert height_at(1.0, 0.0, 0.3) == 0.0  # and where there is none, there is nothing to bring
    assert height_at(1.0, 0.5, 0.3) == height_at(1.0, 2.0, 0.3) == 0.0
    assert height_at(1.0, np.nan, np.nan) == 0.0


@pytest.mark.slow
def test_default_options_reach_the_quality_bar(server, tmp_path):
    evaluator = SentimentEvaluator(None, tmp_path)
    facts = evaluator.prepare()
    assert facts["reward_accuracy"] > 0.87
    assert facts["sft_held_out_nats"] < 4.4
    report = trial(evaluator, server, 0)
    score = report.metric("reward_at_kl")
    assert score.value > 8 * score.stderr
    assert score.value > 0.65
    assert report.metric("win_rate_at_kl").value > 0.6
    assert report.metric("refused").value == 0
    assert report.arrays["effective_share"].min() > 0.1
    doubled = SentimentEvaluator({"betas": [2 * b for b in evaluator.options.betas]}, tmp_path)
    assert trial(doubled, server, 0).metric("reward_at_kl").value == pytest.approx(score.value, abs=0.005)
