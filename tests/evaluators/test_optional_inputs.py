"""What evaluators feed to the optional inputs of pairs, and to losses of single responses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from evaluators.objectives import known_objective, known_objectives
from evaluators.options import OptionsError
from evaluators.preference.contract import PAIRS, UNPAIRED
from evaluators.preference.enumerable import EnumerableEvaluator, EnumerableUnpairedEvaluator
from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.feeds import PairFeed
from evaluators.preference.enumerable.options import EnumerableOptions, UnpairedOptions
from evaluators.preference.enumerable.responses import tree
from evaluators.preference.enumerable.unpaired import UnpairedFeed, reference_samples, schedule
from evaluators.preference.enumerable.worlds import batch_schedule, build_worlds, label_probabilities
from evaluators.preference.sentiment import SentimentEvaluator
from evaluators.testing import EvaluatorConformance
from sandbox.candidate import Candidate
from sandbox.contract import Contract
from sandbox.gate import check_source
from sandbox.oracle import LossOracle
from sandbox.server import OracleServer
from tests.support.inline_oracle import InlineOracle

REGIMES = ("base", "flips", "length_bias")
QUICK = {"steps": 20, "betas": [0.1, 0.8], "learning_rates": [0.01, 0.03], "regimes": [*REGIMES], "max_length": 5}
RUNS = 4  # of each world
TREE = tree(5)
CPU = torch.device("cpu")


class Listener(InlineOracle):
    """An inline oracle that keeps what it was called with."""

    def __init__(self, candidate: Candidate, contract: Contract) -> None:
        super().__init__(candidate, contract)
        self.heard: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def _means(self, inputs: Any, scalars: Any) -> torch.Tensor:
        self.heard.append(({n: t.detach().clone() for n, t in inputs.items()}, {n: [*v] for n, v in scalars.items()}))
        return super()._means(inputs, scalars)


def reading(contract: Contract, *names: str) -> Candidate:
    """A loss that names these optional inputs and trains like DPO, or like apo_zero_unpaired."""
    plain = known_objective(contract.name, "dpo" if contract is PAIRS else "apo_zero_unpaired").candidate.source
    source = plain.replace("beta):\n", f"beta, {', '.join(names)}):\n")
    assert source != plain
    return Candidate(contract.name, source)


@pytest.fixture(scope="module")
def server():
    with OracleServer() as running:
        yield running


@pytest.fixture(scope="module")
def worlds():
    return build_worlds(0, EnumerableOptions(regimes=REGIMES).used_regimes, TREE)


@pytest.fixture(scope="module")
def heard():
    """What a loss that names everything is called with over 20 steps of seed 0."""
    oracle = Listener(reading(PAIRS, *PAIRS.optional), PAIRS)
    EnumerableEvaluator(QUICK).run(oracle, 0)
    return oracle.heard


@pytest.fixture(scope="module")
def heard_unpaired():
    oracle = Listener(reading(UNPAIRED, *UNPAIRED.optional), UNPAIRED)
    EnumerableUnpairedEvaluator(QUICK).run(oracle, 0)
    return oracle.heard


# --- pairs


def test_a_loss_that_names_none_is_given_none_and_trains_the_same(worlds) -> None:
    plain, rich = (
        Listener(known_objective(PAIRS.name, "dpo").candidate, PAIRS),
        reading(PAIRS, "chosen_length", "progress"),
    )
    one = EnumerableEvaluator(QUICK).run(plain, 0)
    assert {*plain.heard[0][0]} == {t.name for t in PAIRS.tensors if not t.optional}
    assert one.metrics == EnumerableEvaluator(QUICK).run(InlineOracle(rich, PAIRS), 0).metrics


def test_lengths_and_scores_are_those_of_the_responses(heard, worlds) -> None:
    for number, world in enumerate(worlds.worlds):
        order = batch_schedule(0, world.regime, QUICK["steps"], 32)
        for step in (0, 19):
            inputs, _ = heard[step]
            for side, answers in (("chosen", world.train.first), ("rejected", world.train.second)):
                prompts, here = world.train.prompts[order[step]], answers[order[step]]
                for run in range(number * RUNS, (number + 1) * RUNS):
                    np.testing.assert_array_equal(inputs[f"{side}_length"][run], TREE.lengths[here] + 1)
                    score = world.proxies[prompts, here]
                    np.testing.assert_allclose(inputs[f"{side}_score"][run], score, rtol=1e-6)
                    reference = world.reference_logps[prompts, here]
                    np.testing.assert_allclose(inputs[f"reference_{side}_logps"][run], reference, rtol=1e-6)


def test_a_length_counts_the_terms_of_the_log_prob_and_one_that_is_zero() -> None:
    emitted = TREE.emitted.sum(1)  # 1 to 5 symbols
    counted = TREE.lengths + 1
    full = TREE.lengths == TREE.max_length
    np.testing.assert_array_equal(counted, emitted + full)
    assert counted.min() == 1


def test_soft_labels_are_what_the_labelling_would_be_with_the_proxies(heard, worlds) -> None:
    for number, world in enumerate(worlds.worlds):
        regime, rows = world.regime, world.train.prompts
        order = batch_schedule(0, regime, QUICK["steps"], 32)
        proxies = world.proxies
        logits = regime.sharpness * (proxies[rows, world.train.first] - proxies[rows, world.train.second])
        logits = logits + regime.length_bias * (TREE.lengths[world.train.first] - TREE.lengths[world.train.second])
        clean = 1 / (1 + np.exp(-logits))
        p = (1 - regime.flip) * clean + regime.flip * (1 - clean)
        np.testing.assert_allclose(world.soft_labels, p, rtol=1e-9)
        np.testing.assert_allclose(heard[3][0]["preference_probability"][RUNS * number], p[order[3]], rtol=1e-5)


def test_labels_are_drawn_with_the_probabilities_of_the_rewards(worlds) -> None:
    """Over all pairs: the chosen side of a pair was drawn with its p. Proxies know it less well, and are still of use."""
    for world in worlds.worlds:
        p = label_probabilities(world.train, world.rewards, world.regime, TREE)
        most_likely = np.maximum(p, 1 - p)
        right, expected = (p > 0.5).sum(), most_likely.sum()
        deviation = np.sqrt((most_likely * (1 - most_likely)).sum())
        assert abs(right - expected) < 4 * deviation + 1
        assert p.size / 2 < (world.soft_labels > 0.5).sum() < right


def test_the_running_log_ratio_is_the_mean_over_steps_so_far(heard) -> None:
    total = np.zeros(len(REGIMES) * RUNS)
    for step, (inputs, scalars) in enumerate(heard):
        ratios = [inputs[f"policy_{s}_logps"] - inputs[f"reference_{s}_logps"] for s in ("chosen", "rejected")]
        total += torch.cat(ratios, 1).double().mean(1).numpy()
        np.testing.assert_allclose(scalars["running_log_ratio"], total / (step + 1), rtol=1e-6, atol=1e-9)
    assert np.abs(heard[0][1]["running_log_ratio"]).max() < 1e-5
    assert len(set(heard[-1][1]["running_log_ratio"])) == 12  # every run has its own


def test_the_moving_margin_keeps_nine_tenths_of_what_it_was(heard) -> None:
    moving = np.zeros(len(REGIMES) * RUNS)
    for inputs, scalars in heard:
        chosen, rejected = (
            inputs[f"policy_{s}_logps"] - inputs[f"reference_{s}_logps"] for s in ("chosen", "rejected")
        )
        moving = 0.9 * moving + 0.1 * (chosen - rejected).double().mean(1).numpy()
        np.testing.assert_allclose(scalars["moving_margin"], moving, rtol=1e-6, atol=1e-9)
    assert np.abs(heard[0][1]["moving_margin"]).max() < 1e-5
    assert min(heard[-1][1]["moving_margin"]) > 0
    assert len(set(heard[-1][1]["moving_margin"])) == 12  # every run has its own


@pytest.mark.parametrize("name", ["simpo", "orpo", "mappo", "bco_pair", "aot", "beta_dpo"])
def test_rich_objectives_train_in_a_child(name: str, server) -> None:
    objective = known_objective(PAIRS.name, name)
    with LossOracle(server, objective.candidate, PAIRS, objective.inputs) as oracle:
        report = EnumerableEvaluator(QUICK).run(oracle, 0)
    assert (report.arrays["chosen_change"] - report.arrays["rejected_change"])[..., -1].mean() > 0.1
    assert (report.arrays["kl"][..., -1] > 0).all()
    assert report.metric("ranking_accuracy").value > 0.5


def test_knowing_the_length_bias_helps_where_it_is_planted() -> None:
    """R-DPO beats DPO there, since lengths and their sign arrive; where labels have no such bias it costs something."""
    source = known_objective(PAIRS.name, "r_dpo_length").candidate.source
    knowing = Candidate(PAIRS.name, source.replace("0.05 * longer_by", "0.5 * longer_by"))
    assert knowing.source != source
    regimes = {"regimes": ["base", "length_bias"], "learning_rates": [0.0025, 0.006, 0.015]}
    evaluator, gains = EnumerableEvaluator(regimes), []
    for seed in range(4):
        plain, told = (
            evaluator.run(InlineOracle(c, PAIRS), seed).arrays["score"]
            for c in (known_objective(PAIRS.name, "dpo").candidate, knowing)
        )
        gains.append(told - plain)
    base, biased = np.mean(gains, 0)
    assert base < 0
    assert biased > 0.01


# --- single responses


class TestConformance(EvaluatorConformance):
    quick_options = QUICK
    changed_option = ("desirable_kept", 0.1)
    objective = "kto"

    def make_evaluator(self, options):
        return EnumerableUnpairedEvaluator(options)


def test_options_of_the_unpaired_evaluator() -> None:
    options = EnumerableUnpairedEvaluator().task.options
    assert (options["batch"], options["desirable_kept"], options["undesirable_kept"]) == (64, 1.0, 1.0)
    paired = EnumerableEvaluator().task.options
    assert {n: v for n, v in options.items() if n in paired and n != "batch"} == {
        n: v for n, v in paired.items() if n != "batch"
    }
    for bad, message in (
        ({"desirable_kept": 1.5}, "desirable_kept is a share"),
        ({"undesirable_kept": -0.1}, "undesirable_kept is a share"),
        ({"desirable_kept": 0.0, "undesirable_kept": 0.01}, "at least 0.05"),
        ({"steps": 15}, "multiple of 4"),
    ):
        with pytest.raises(OptionsError, match=message):
            EnumerableUnpairedEvaluator(bad)


def test_the_description_says_what_is_done_with_pairs() -> None:
    text = EnumerableUnpairedEvaluator({"desirable_kept": 0.1}).task_description
    for part in (
        "taken apart",
        "Only 10% of the chosen responses",
        "batches of 64 responses",
        "score_quantile is that of the score",
    ):
        assert part in text
    assert "rejected responses are used" not in text
    assert "taken apart" not in EnumerableEvaluator().task_description


@pytest.mark.parametrize(("desirable", "undesirable"), [(1.0, 1.0), (0.1, 1.0), (1.0, 0.0)])
def test_each_pair_gives_one_example_of_each_kind_and_shares_are_kept(worlds, desirable, undesirable) -> None:
    for world in worlds.worlds:
        count = world.train.prompts.size
        kept = round(desirable * count) + round(undesirable * count)
        options = UnpairedOptions(steps=200, batch=kept, desirable_kept=desirable, undesirable_kept=undesirable)
        drawn = schedule(0, world, options)
        assert drawn.prompts.shape == (200, kept)  # a batch is then all examples that there are, once
        for step in (0, 199):
            pairs = {(p, a, 1) for p, a in zip(world.train.prompts, world.train.first, strict=True)}
            pairs |= {(p, a, 0) for p, a in zip(world.train.prompts, world.train.second, strict=True)}
            here = list(zip(drawn.prompts[step], drawn.responses[step], drawn.desirable[step], strict=True))
            assert {*here} <= pairs
            assert sum(e[2] for e in here) == round(desirable * count)
        assert not np.array_equal(drawn.prompts[0], drawn.prompts[1])  # in another order


def test_examples_do_not_tell_which_belong_together(worlds) -> None:
    """In no batch is the order of desirable examples that of the undesirable ones of the same pairs."""
    drawn = schedule(0, worlds.worlds[0], UnpairedOptions())
    labels = drawn.desirable
    assert 0.4 < labels.mean() < 0.6
    together = [(row[: len(row) // 2] != row[len(row) // 2 :]).mean() for row in labels]
    assert 0.3 < np.mean(together) < 0.7


def test_what_single_responses_come_with(heard_unpaired, worlds) -> None:
    options = UnpairedOptions(steps=QUICK["steps"], betas=tuple(QUICK["betas"]))
    for number, world in enumerate(worlds.worlds):
        drawn = schedule(0, world, options)
        for step in (0, 19):
            inputs, run = heard_unpaired[step][0], RUNS * number + 1
            prompts, answers = drawn.prompts[step], drawn.responses[step]
            np.testing.assert_array_equal(inputs["desirable"][run], drawn.desirable[step])
            np.testing.assert_array_equal(inputs["length"][run], TREE.lengths[answers] + 1)
            np.testing.assert_allclose(inputs["score"][run], world.proxies[prompts, answers], rtol=1e-5)
            np.testing.assert_allclose(
                inputs["reference_logps"][run], world.reference_logps[prompts, answers], rtol=1e-6
            )
            for i in (0, 63):
                below = world.proxies[prompts[i]] <= world.proxies[prompts[i], answers[i]]
                share = np.exp(world.reference_logps[prompts[i]])[below].sum()
                assert float(inputs["score_quantile"][run][i]) == pytest.approx(share, abs=1e-5)


def test_fresh_responses_come_from_the_reference(worlds) -> None:
    world = worlds.worlds[0]
    prompts = np.arange(d.PROMPTS).repeat(4000).reshape(4, -1)
    drawn = reference_samples(0, world, prompts)
    counts = np.zeros_like(world.reference_logps)
    np.add.at(counts, (prompts, drawn), 1)
    expected = 4000 * np.exp(world.reference_logps)
    often = expected > 20
    z = (counts - expected)[often] / np.sqrt(expected[often])
    assert np.abs(z).max() < 5
    assert 0.8 < z.std() < 1.2
    assert np.array_equal(drawn, reference_samples(0, world, prompts))


def test_the_policys_log_probs_of_fresh_responses_carry_gradient(worlds) -> None:
    options = UnpairedOptions(steps=12, betas=(0.5,), learning_rates=(0.01, 0.03))
    feed = UnpairedFeed(worlds, options, CPU, ("sample_policy_logps", "sample_reference_logps"))
    logps = torch.randn(6, 2 * options.batch, requires_grad=True)
    inputs = feed.inputs(0, logps)
    (gradient,) = torch.autograd.grad(inputs["sample_policy_logps"].sum(), logps)
    assert torch.equal(gradient, torch.cat([torch.zeros(6, 64), torch.ones(6, 64)], 1))
    assert inputs["sample_reference_logps"].shape == (6, 64)


def test_the_kl_estimate_starts_at_zero_grows_and_is_never_negative(heard_unpaired) -> None:
    source = "def loss(policy_logps, reference_logps, desirable, beta, kl_estimate):\n    return -policy_logps\n"
    lifting = Listener(
        Candidate(UNPAIRED.name, source), UNPAIRED
    )  # what is desirable becomes likelier after all prompts
    EnumerableUnpairedEvaluator({**QUICK, "undesirable_kept": 0.0}).run(lifting, 0)
    for heard in (heard_unpaired, lifting.heard):
        estimates = np.array([scalars["kl_estimate"] for _, scalars in heard])  # (steps, runs)
        assert (estimates >= 0).all()
        assert estimates[0].max() < 1e-5
    assert estimates[-1].max() > 1e-3


def test_pair_feed_gives_only_what_is_asked_for(worlds) -> None:
    feed = PairFeed(worlds, EnumerableOptions(steps=12), CPU, ("rejected_score",))
    logps = torch.zeros(len(REGIMES) * EnumerableOptions().runs, 64)
    assert {*feed.inputs(0, logps)} == {
        *(t.name for t in PAIRS.tensors if not t.optional),
        "chosen_score",
        "rejected_score",
    }
    assert feed.scalars(0, None, {}) == {}


@pytest.mark.parametrize("name", sorted(known_objectives(UNPAIRED.name)))
def test_unpaired_objectives_learn(name: str, server) -> None:
    objective = known_objective(UNPAIRED.name, name)
    options = {**QUICK, "steps": 40, "betas": [0.4, 1.6]}
    with LossOracle(server, objective.candidate, UNPAIRED, objective.inputs) as oracle:
        report = EnumerableUnpairedEvaluator(options).run(oracle, 0)
    assert report.metric("frontier").value > 0.2
    assert report.metric("ranking_accuracy").value > 0.6


def test_only_desirable_examples_can_be_learnt_from() -> None:
    objective = known_objective(UNPAIRED.name, "pmpo")
    evaluator = EnumerableUnpairedEvaluator({**QUICK, "undesirable_kept": 0.0, "betas": [1.0]})
    report = evaluator.run(InlineOracle(objective.candidate, UNPAIRED), 0)
    assert report.arrays["reward"][..., -1].mean() > 0
    assert report.arrays["chosen_change"][..., -1].mean() > 0


# --- real text


def test_sentiment_feeds_the_optional_inputs(small, sentiment_cache, server) -> None:
    evaluator = SentimentEvaluator({**small, "steps": 3, "betas": [0.5]}, sentiment_cache)
    evaluator.prepare()
    oracle = Listener(reading(PAIRS, *PAIRS.optional), PAIRS)
    evaluator.run(oracle, 0)
    batch, moving = small.get("batch", evaluator.options.batch), 0.0
    for step, (inputs, scalars) in enumerate(oracle.heard):
        for name in PAIRS.optional:
            if name in inputs:
                assert inputs[name].shape == (1, batch), name
        lengths = torch.cat([inputs["chosen_length"], inputs["rejected_length"]])
        assert 1 <= int(lengths.min()) <= int(lengths.max()) <= evaluator.options.response_tokens
        p = inputs["preference_probability"]
        gap = inputs["chosen_score"] - inputs["rejected_score"]
        torch.testing.assert_close(
            p, torch.sigmoid(evaluator.options.label_sharpness * gap).to(p), rtol=1e-4, atol=1e-6
        )
        ratios = [inputs[f"policy_{s}_logps"] - inputs[f"reference_{s}_logps"] for s in ("chosen", "rejected")]
        moving = 0.9 * moving + 0.1 * float((ratios[0] - ratios[1]).mean())
        assert scalars["moving_margin"][0] == pytest.approx(moving, rel=1e-5, abs=1e-6)
        if step == 0:
            assert scalars["running_log_ratio"][0] == pytest.approx(float(torch.cat(ratios, 1).mean()), abs=1e-6)
    with LossOracle(
        server, known_objective(PAIRS.name, "orpo").candidate, PAIRS, known_objective(PAIRS.name, "orpo").inputs
    ) as o:
        assert evaluator.run(o, 0).metric("effective_share").value < 1


def test_every_optional_input_has_a_known_objective_or_a_reason() -> None:
    read = {n for c in (PAIRS, UNPAIRED) for o in known_objectives(c.name).values() for n in o.inputs}
    unread = {n for c in (PAIRS, UNPAIRED) for n in c.optional} - read
    assert unread == {"preference_probability", "progress", "length", "score"}  # for what is still to be discovered


def test_progress_and_all_other_inputs_pass_the_gate_by_name() -> None:
    for contract in (PAIRS, UNPAIRED):
        candidate = reading(contract, *contract.optional)
        assert check_source(candidate, contract).parameters == tuple(i.name for i in contract.inputs)
