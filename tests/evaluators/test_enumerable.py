import subprocess
import sys

import numpy as np
import pytest
import torch

from evaluators.base import training_progress
from evaluators.objectives import known_objective
from evaluators.options import OptionsError
from evaluators.preference.contract import PAIRS
from evaluators.preference.enumerable import EnumerableEvaluator
from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.scoring import frontier_area
from evaluators.preference.enumerable.worlds import build_worlds
from evaluators.testing import EvaluatorConformance
from sandbox.candidate import Candidate
from sandbox.failure import CandidateError, FailureKind
from sandbox.gate import check_source
from sandbox.oracle import LossOracle
from sandbox.server import OracleServer
from tests.support.inline_oracle import InlineOracle

QUICK = {"steps": 20, "betas": [0.1, 0.8]}
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
    changed_option = ("steps", 30)
    objective = "dpo"

    def make_evaluator(self, options):
        return EnumerableEvaluator(options)


def test_defaults_are_the_published_definition():
    options = EnumerableEvaluator().task.options
    assert options["betas"] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4]
    assert (options["steps"], options["fidelity"], options["device"]) == (200, "exact", "cpu")
    assert [r.name for r in d.REGIMES] == [
        "base", "little_data", "label_flips", "near_deterministic", "off_policy", "length_bias"
    ]  # fmt: skip
    assert (d.VOCABULARY, d.MAX_LENGTH, d.RESPONSES, len(d.PROMPTS)) == (4, 4, 341, 12)
    assert (d.KL_BUDGET, d.OTHER_KL_BUDGETS, d.GRID_POINTS, d.CHECKPOINT_EVERY) == (2.0, (0.5, 5.0), 201, 10)


def test_describing_the_task_imports_no_torch():
    script = (
        "import sys; from evaluators.preference.enumerable import EnumerableEvaluator as E; "
        "E().task.id, E.metrics, E().resources; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fidelity": "fast"}, "fidelity must be exact"),
        ({"steps": 15}, "multiple of 10"),
        ({"steps": 0}, "steps must be positive"),
        ({"betas": []}, "betas must be positive"),
        ({"betas": [0.1, 0.1]}, "betas must be positive and differ"),
        ({"betas": [0.1, -0.1]}, "betas must be positive"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
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
    alone = EnumerableEvaluator({**QUICK, "betas": [0.8]}).run(InlineOracle(known("ipo"), PAIRS), 0)
    np.testing.assert_allclose(report.arrays["kl"][:, 1], alone.arrays["kl"][:, 0], rtol=1e-4, atol=1e-7)
    assert (report.arrays["kl"][:, 0] != report.arrays["kl"][:, 1])[:, 1:].all()  # beta arrives


def test_report_arrays_start_at_the_reference(quick):
    report = quick.run(InlineOracle(known("dpo"), PAIRS), 0)
    arrays = report.arrays
    assert arrays["kl"].shape == (6, 2, 3)
    assert arrays["loss"].shape == (6, 2, 20)
    np.testing.assert_array_equal(arrays["checkpoints"], [0, 10, 20])
    for name in ("kl", "chosen_change", "rejected_change"):
        np.testing.assert_array_equal(arrays[name][:, :, 0], 0)
        assert (arrays[name][:, :, 1:] != 0).all()
    np.testing.assert_allclose(arrays["reward"][:, :, 0], 0, atol=1e-12)
    np.testing.assert_allclose(arrays["ranking_accuracy"][:, :, 0], 0.5)
    np.testing.assert_allclose(arrays["loss"][:, :, 0], np.log(2), rtol=1e-5)
    assert (arrays["reward"][:, :, -1] > 0).all()
    np.testing.assert_allclose(arrays["score"].mean(), report.metric("frontier").value)
    assert report.oracle_calls == 20


def test_progress_is_passed_and_runs_from_zero_to_one(quick):
    seen = f"{SIGNATURE}, progress):\n    return {MARGIN} * 0 + progress\n"
    loss = quick.run(inline(seen), 0).arrays["loss"]
    np.testing.assert_allclose(loss[0, 0], np.arange(20) / 19, rtol=1e-6)


def test_progress_of_a_single_step_is_zero():
    assert [training_progress(s, 3) for s in range(3)] == [0.0, 0.5, 1.0]
    assert training_progress(0, 1) == 0.0


def test_the_description_follows_the_options():
    text = EnumerableEvaluator({"betas": [0.25], "steps": 30, "batch": 8, "learning_rate": 0.5}).task_description
    for part in (
        "grid 0.25,",
        "30 steps of Adam",
        "learning rate 0.5",
        "batches of 8 pairs",
        "only 128 pairs",
        "15% of",
    ):
        assert part in text, part


def test_ignorant_loss_scores_nothing(quick):
    report = quick.run(inline(f"{SIGNATURE}):\n    return {MARGIN} * 0\n"), 0)
    assert report.metric("frontier").value == pytest.approx(0, abs=1e-9)
    assert report.metric("final_kl").value == pytest.approx(0, abs=1e-9)
    assert report.metric("ranking_accuracy").value == 0.5


def test_loss_that_prefers_the_rejected_is_worse_than_nothing_but_scores_zero(quick):
    report = quick.run(inline(f"{SIGNATURE}):\n    return {MARGIN}\n"), 0)
    assert report.arrays["reward"][:, :, -1].max() < 0
    assert report.metric("frontier").value == pytest.approx(0, abs=1e-9)
    assert report.metric("ranking_accuracy").value < 0.5


def test_loss_on_the_chosen_alone_lifts_the_chosen(quick):
    report = quick.run(inline(f"{SIGNATURE}):\n    return -policy_chosen_logps\n"), 0)
    assert report.metric("chosen_fell").value == 0
    assert report.metric("chosen_change").value > 0


def test_weights_that_overflow_are_the_candidates_failure():
    evaluator = EnumerableEvaluator({"steps": 10, "betas": [1.0], "learning_rate": 1e38})
    with pytest.raises(CandidateError) as caught:
        evaluator.run(InlineOracle(known("dpo"), PAIRS), 0)
    assert caught.value.failure.kind is FailureKind.NON_FINITE


def beta_shifts(seed: int) -> np.ndarray:
    """(2, 6) change of each world's frontier when DPO's beta is halved and when it is doubled.

    One packed run over the union of the three grids: runs do not influence each other.
    """
    betas = [0.025 * 2.0**k for k in range(10)]
    report = EnumerableEvaluator({"betas": betas}).run(InlineOracle(known("dpo"), PAIRS), seed)
    kl, reward, worlds = report.arrays["kl"], report.arrays["reward"], build_worlds(seed).worlds

    def scores(first: int) -> np.ndarray:
        chosen = slice(first, first + 8)
        return np.array(
            [frontier_area(kl[i, chosen], reward[i, chosen], 2.0) / w.areas[2.0] for i, w in enumerate(worlds)]
        )

    return np.stack([scores(0), scores(2)]) - scores(1)


def test_rescaling_beta_gains_nothing():
    shifts = beta_shifts(0)
    assert np.abs(shifts).max() <= 0.006
    assert np.abs(shifts).max() > 0  # beta does reach the loss


@pytest.mark.slow
def test_rescaling_beta_moves_no_regime_over_seeds():
    shifts = np.stack([beta_shifts(seed) for seed in range(5)])
    assert np.abs(shifts.mean(0)).max() <= 0.006, shifts


@pytest.mark.slow
def test_known_losses_train_at_every_beta_and_convex_ones_nearly_tie():
    evaluator = EnumerableEvaluator()
    scores = {}
    for name in ("dpo", "hinge", "ipo", "kto_pair", "lrml"):
        reports = [evaluator.run(InlineOracle(known(name), PAIRS), seed) for seed in range(2)]
        scores[name] = np.mean([r.metric("frontier").value for r in reports])
    assert 0.6 < scores["dpo"] < 0.95
    for name in ("hinge", "ipo"):
        assert abs(scores[name] - scores["dpo"]) < 0.05
    assert all(0.3 < s < 1 for s in scores.values())
