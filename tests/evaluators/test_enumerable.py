import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch

from evaluators.base import training_progress
from evaluators.objectives import known_objective
from evaluators.options import OptionsError
from evaluators.preference.contract import PAIRS
from evaluators.preference.enumerable import EnumerableEvaluator
from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.responses import count
from evaluators.testing import EvaluatorConformance
from sandbox.candidate import Candidate
from sandbox.failure import CandidateError, FailureKind
from sandbox.gate import check_source
from sandbox.oracle import LossOracle
from sandbox.server import OracleServer
from tests.support.inline_oracle import InlineOracle
from tests.support.rates import RATES

SMALL = {"regimes": ["base", "near_copies"], "max_length": 5}
QUICK = {"steps": 20, "betas": [0.1, 0.8], "learning_rates": [0.01, 0.03], **SMALL}
SIGNATURE = (
    "def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta"
)
MARGIN = "((policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps))"


def inline(source: str) -> InlineOracle:
    return InlineOracle(Candidate(PAIRS.name, source), PAIRS)


def known(name: str) -> Candidate:
    return known_objective(PAIRS.name, name).candidate


@pytest.fixture(scope="module")
def quick():
    return EnumerableEvaluator(QUICK)


class TestConformance(EvaluatorConformance):
    quick_options = QUICK
    changed_option = ("steps", 24)
    objective = "dpo"

    def make_evaluator(self, options):
        return EnumerableEvaluator(options)


def test_defaults_are_the_published_definition():
    options = EnumerableEvaluator().task.options
    assert options["betas"] == [0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24]
    assert options["learning_rates"] == [0.001, 0.0025, 0.006, 0.015, 0.036]
    assert (options["steps"], options["fidelity"], options["device"], options["max_length"]) == (
        32,
        "exact",
        "cpu",
        10,
    )
    assert options["regimes"] == [r.name for r in d.REGIMES] == [
        "base", "few_pairs", "flips", "judge", "expert", "deterministic", "near_copies", "off_policy", "other_expert",
        "length_bias",
    ]  # fmt: skip
    assert (EnumerableEvaluator.version, d.VOCABULARY, d.PROMPTS, count(10)) == (3, 2, 12, 2047)
    assert (d.KL_BUDGET, d.OTHER_KL_BUDGETS, d.GRID_POINTS, d.CHECKPOINTS) == (2.0, (0.5, 5.0), 101, 4)


def test_screening_trains_a_part_of_the_same():
    whole, screen = EnumerableEvaluator(), EnumerableEvaluator({"fidelity": "screen"})
    assert screen.prepare() == {"worlds": 4.0, "runs": 60.0}
    assert whole.prepare() == {"worlds": 10.0, "runs": 450.0}
    assert screen.task.id != whole.task.id
    one = EnumerableEvaluator({"fidelity": "screen", "learning_rates": [0.01], "betas": [0.1]})
    assert one.prepare()["runs"] == 4.0
    assert {m.name for m in screen.metrics} < {m.name for m in whole.metrics}
    assert tuple(m.name for m in whole.metrics) == tuple(m.name for m in EnumerableEvaluator.metrics)


def test_describing_the_task_imports_no_torch():
    script = (
        "import sys; from evaluators.preference.enumerable import EnumerableEvaluator as E; "
        "E().task.id, E.metrics, E().resources; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fidelity": "fast"}, "fidelity must be exact or screen"),
        ({"fidelity": "screen", "regimes": ["flips"]}, "fidelity screen trains .*, and regimes has none of them"),
        ({"steps": 15}, "multiple of 4"),
        ({"steps": 0}, "steps must be positive"),
        ({"betas": []}, "betas is empty"),
        ({"betas": [0.1, 0.1]}, "betas must rise, each value once: 0.1"),
        ({"betas": [-0.1, 0.1]}, "betas must be positive, not -0.1"),
        ({"learning_rates": []}, "learning_rates is empty"),
        ({"learning_rates": [0.1, 0.01]}, "learning_rates must rise, each value once: 0.01, 0.1"),
        ({"learning_rates": [0.0]}, "learning_rates must be positive"),
        ({"learning_rate": 0.01}, "did you mean 'learning_rates'"),
        ({"regimes": []}, "regimes is empty"),
        ({"regimes": ["bass"]}, "there is no regime 'bass'; did you mean 'base'"),
        ({"regimes": ["base", "base"]}, "regimes must each be named once"),
        ({"max_length": 1}, "max_length must be at least 2"),
        ({"max_length": 13}, "max_length 13 means 16,383 responses to each prompt, .* at most 8,191"),
        ({"max_length": 10**9}, "max_length 1000000000 means about 2.1000000001 responses"),
        ({"device": "tpu"}, "device must be one of"),
        ({"beta": 0.1}, "did you mean 'betas'"),
        ({"batch": 2.5}, "batch takes a whole number"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, message):
    with pytest.raises(OptionsError, match=message) as caught:
        EnumerableEvaluator(options)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_missing_gpu_is_a_plain_message():
    with pytest.raises(OptionsError, match="sees no GPU"):
        EnumerableEvaluator({"device": "cuda"}).prepare()
    assert EnumerableEvaluator({"device": "cuda"}).resources.gpus > 0
    assert EnumerableEvaluator({"device": "auto"}).resources.gpus == 0


def test_oracle_child_and_inline_loss_train_the_same_policies(quick):
    candidate = known("dpo")
    with (
        OracleServer() as server,
        LossOracle(server, candidate, PAIRS, check_source(candidate, PAIRS).parameters) as oracle,
    ):
        confined = quick.run(oracle, 0)
    assert confined.metrics == quick.run(InlineOracle(candidate, PAIRS), 0).metrics


def test_threads_do_not_change_a_bit_and_are_restored(quick):
    before = torch.get_num_threads()
    two = EnumerableEvaluator({**QUICK, "threads": 2}).run(InlineOracle(known("dpo"), PAIRS), 0)
    one = quick.run(InlineOracle(known("dpo"), PAIRS), 0)
    assert (one.threads, two.threads) == (1, 2)
    assert one.metrics == two.metrics
    assert torch.get_num_threads() == before


def test_runs_are_independent_of_what_is_packed_beside_them(quick):
    report = quick.run(InlineOracle(known("ipo"), PAIRS), 0)
    one = {**QUICK, "betas": [0.8], "learning_rates": [0.03], "regimes": ["near_copies"]}
    alone = EnumerableEvaluator(one).run(InlineOracle(known("ipo"), PAIRS), 0)
    np.testing.assert_allclose(report.arrays["kl"][1, 1, 1], alone.arrays["kl"][0, 0, 0], rtol=1e-4, atol=1e-7)
    kl = report.arrays["kl"][..., 1:]
    assert (kl[:, :, 0] != kl[:, :, 1]).all()  # beta arrives
    assert (kl[:, 0] != kl[:, 1]).all()  # and the learning rate


def test_report_arrays_start_at_the_reference(quick):
    report = quick.run(InlineOracle(known("dpo"), PAIRS), 0)
    arrays = report.arrays
    assert arrays["kl"].shape == (2, 2, 2, 5)
    assert arrays["loss"].shape == (2, 2, 2, 20)
    np.testing.assert_array_equal(arrays["checkpoints"], [0, 5, 10, 15, 20])
    for name in ("kl", "chosen_change", "rejected_change"):
        np.testing.assert_array_equal(arrays[name][..., 0], 0)
        assert (arrays[name][..., 1:] != 0).all()
    np.testing.assert_allclose(arrays["reward"][..., 0], 0, atol=1e-9)
    np.testing.assert_allclose(arrays["ranking_accuracy"][..., 0], 0.5)
    np.testing.assert_allclose(arrays["loss"][..., 0], np.log(2), rtol=1e-5)
    assert (arrays["reward"][..., -1] > 0).any((1, 2)).all()
    np.testing.assert_allclose(arrays["score"].mean(), report.metric("frontier").value)
    assert report.oracle_calls == 20


def test_progress_is_passed_and_runs_from_zero_to_one(quick):
    seen = f"{SIGNATURE}, progress):\n    return {MARGIN} * 0 + progress\n"
    loss = quick.run(inline(seen), 0).arrays["loss"]
    np.testing.assert_allclose(loss[0, 0, 0], np.arange(20) / 19, rtol=1e-6)


def test_progress_of_a_single_step_is_zero():
    assert [training_progress(s, 3) for s in range(3)] == [0.0, 0.5, 1.0]
    assert training_progress(0, 1) == 0.0


def test_the_description_follows_the_options():
    options = {"betas": [0.25], "steps": 40, "batch": 8, "learning_rates": [0.5], "regimes": ["few_pairs", "flips"]}
    text = EnumerableEvaluator(options).task_description
    for part in (
        "each beta of 0.25 at each learning rate of 0.5",
        "40 steps of Adam",
        "batches of 8 pairs",
        "few_pairs: 128 pairs",
        "30% of",
        "2 worlds",
    ):
        assert part in text, part
    assert "length_bias" not in text


def test_a_grid_of_one_value_is_allowed_and_said():
    one = EnumerableEvaluator({"betas": [0.25], "learning_rates": [0.5]})
    said: list[str] = []
    one.prepare(said.append)
    assert [text.split(",")[0] for text in said] == ["there is but one learning rate", "there is but one beta"]
    assert "There is but one learning rate, so" in one.task_description
    said.clear()
    EnumerableEvaluator({"betas": [0.25, 0.5]}).prepare(said.append)
    assert said == []
    assert "but one" not in EnumerableEvaluator().task_description


def test_ignorant_loss_scores_nothing(quick):
    report = quick.run(inline(f"{SIGNATURE}):\n    return {MARGIN} * 0\n"), 0)
    assert report.metric("frontier").value == pytest.approx(0, abs=1e-7)
    assert report.metric("final_kl").value == pytest.approx(0, abs=1e-7)
    assert report.metric("ranking_accuracy").value == 0.5


def test_loss_that_prefers_the_rejected_is_worse_than_nothing_but_scores_zero():
    report = EnumerableEvaluator({**QUICK, "regimes": ["base"]}).run(inline(f"{SIGNATURE}):\n    return {MARGIN}\n"), 0)
    assert report.arrays["reward"][..., -1].max() < 0
    assert report.metric("frontier").value == pytest.approx(0, abs=1e-7)
    assert report.metric("ranking_accuracy").value < 0.5


def test_loss_on_the_chosen_alone_lifts_the_chosen(quick):
    report = quick.run(inline(f"{SIGNATURE}):\n    return -policy_chosen_logps\n"), 0)
    assert report.metric("chosen_fell").value == 0
    assert report.metric("chosen_change").value > 0


def test_a_run_that_diverges_has_no_points_and_the_others_stay():
    loss = f"{SIGNATURE}):\n    return beta * torch.exp(-{MARGIN} * beta * 1e4)\n"
    report = EnumerableEvaluator({**QUICK, "betas": [1e-6, 0.8]}).run(inline("import torch\n\n" + loss), 0)
    assert 0 < report.metric("diverged").value < 1
    assert np.isnan(report.arrays["kl"][:, :, 1, -1]).any()
    assert np.isfinite(report.arrays["kl"][:, :, 0]).all()
    assert np.isfinite(report.metric("frontier").value)


def test_a_loss_that_diverges_everywhere_fails():
    with pytest.raises(CandidateError, match="no longer a number") as caught:
        EnumerableEvaluator(QUICK).run(inline(f"{SIGNATURE}):\n    return {MARGIN} * float('nan')\n"), 0)
    assert caught.value.failure.kind is FailureKind.NON_FINITE


def frontiers(source: str | None, options: dict, seed: int) -> np.ndarray:
    """(W,) scores of DPO, or of a loss made of its margin z and beta."""
    oracle = InlineOracle(known("dpo"), PAIRS)
    if source is not None:
        oracle = inline(
            f"import math\nimport torch\n\n{SIGNATURE}, progress):\n    z = beta * {MARGIN}\n"
            f"    dpo = -torch.nn.functional.logsigmoid(z)\n    return {source}\n"
        )
    return EnumerableEvaluator(options).run(oracle, seed).arrays["score"]


SMALLER = {"regimes": ["few_pairs", "flips"], "max_length": 6, "betas": [0.16, 0.64, 2.56]}


@pytest.mark.parametrize("name", RATES)
def test_what_is_only_a_learning_rate_gains_nothing(name):
    change = frontiers(RATES[name], SMALLER, 0) - frontiers(None, SMALLER, 0)
    assert np.abs(change).max() < 0.005


@cache
def plain(seed: int) -> np.ndarray:
    return frontiers(None, {}, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RATES, "beta doubled", "beta halved"])
def test_what_is_only_a_learning_rate_gains_nothing_over_seeds(name):
    betas = [0.04 * 2.0**k for k in range(9)]
    factor = {"beta doubled": 2.0, "beta halved": 0.5}.get(name, 1.0)
    changes = []
    for seed in range(20):
        changed = frontiers(RATES.get(name), {"betas": [b * factor for b in betas]}, seed)
        changes.append(changed - plain(seed))
    assert abs(np.mean(changes)) < 0.005, np.mean(changes, 0)
