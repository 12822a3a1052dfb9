"""Known objectives that become others: at a constant, at special inputs, or in expectation. All by their exact source."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS, UNPAIRED
from sandbox.child import load
from tests.evaluators.test_objectives import BATCH, drawn
from tests.support.objective_calls import call, losses

BETAS = (0.05, 0.3, 1.2)


def changed(name: str, replacements: dict[str, str], contract: str = PAIRS.name) -> Callable[..., torch.Tensor]:
    """An objective's function with constants of its source replaced; each must be there."""
    source = known_objectives(contract)[name].candidate.source
    body = source[source.index("\ndef loss(") :]
    for old, new in replacements.items():
        assert old in body, (name, old)
        body = body.replace(old, new)
    return load(source[: source.index("\ndef loss(")] + body, "loss")


def of(function: Callable[..., torch.Tensor], name: str, **inputs: Any) -> np.ndarray:
    reads = known_objectives(PAIRS.name)[name].inputs
    given = {n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in inputs.items()}
    return function(**{n: given[n] for n in reads}).numpy()


AT_A_CONSTANT: list[tuple[str, dict[str, str], str, float]] = [
    # objective, constants replaced, what it becomes, relative tolerance of the limit
    ("cdpo", {"0.9": "1.0", "0.1": "0.0"}, "dpo", 1e-12),
    ("rdpo", {"0.9": "1.0", "0.1": "0.0", "0.8": "1.0"}, "dpo", 1e-12),
    ("vpo", {"0.01": "0.0"}, "dpo", 1e-12),
    ("dpop", {"50.0": "0.0"}, "dpo", 1e-12),
    ("r_dpo_length", {"0.05": "0.0"}, "dpo", 1e-12),
    ("fdpo_alpha", {"0.5": "1e-7"}, "dpo", 1e-4),
    ("fdpo_alpha", {"0.5": "1.0"}, "fdpo_forward_kl", 1e-12),
    ("alphapo", {"0.25 * policy": "1e-7 * policy", "/ 0.25": "/ 1e-7"}, "simpo", 1e-4),
    ("padll", {"0.9": "1.0", "0.5": "0.0"}, "dpo", 1e-12),
    ("cell", {"0.5 * torch": "0.0 * torch", "0.5 * F": "1.0 * F"}, "dpo", 1e-12),
    ("cell", {"0.5 * torch": "1.0 * torch", "0.5 * F": "0.0 * F"}, "exponential", 1e-12),
]


@pytest.mark.parametrize(("name", "replacements", "other", "rtol"), AT_A_CONSTANT)
def test_at_a_constant(name: str, replacements: dict[str, str], other: str, rtol: float) -> None:
    function, inputs = changed(name, replacements), drawn(PAIRS, "ordinary")
    for beta in BETAS:
        found = of(function, name, **inputs, beta=beta)
        np.testing.assert_allclose(found, losses(other, **inputs, beta=beta), rtol=rtol, atol=rtol)
        if rtol == 1e-12:  # and the constant matters
            assert not np.allclose(losses(name, **inputs, beta=beta), found, rtol=1e-3)


def test_mappo_with_a_gap_of_one_and_more_is_dpo_and_with_none_ignores_the_rejected() -> None:
    inputs = drawn(PAIRS, "ordinary")
    for gap in (1.0, 2.5):
        inputs |= {"chosen_score": np.full(BATCH, gap), "rejected_score": np.zeros(BATCH)}
        np.testing.assert_allclose(losses("mappo", **inputs), losses("dpo", **inputs), rtol=1e-12)
    inputs |= {"rejected_score": np.full(BATCH, 3.0)}
    _, gradients = call("mappo", inputs)
    assert bool((gradients["policy_rejected_logps"] == 0).all())


def test_odpo_with_a_difference_of_one_is_dpo_and_asks_for_more_with_a_larger_one() -> None:
    inputs = drawn(PAIRS, "ordinary") | {"chosen_score": np.full(BATCH, 0.5), "rejected_score": np.full(BATCH, -0.5)}
    np.testing.assert_allclose(losses("odpo", **inputs), losses("dpo", **inputs), rtol=1e-12)
    inputs["rejected_score"] = np.full(BATCH, -3.0)
    assert (losses("odpo", **inputs) > losses("dpo", **inputs)).all()


def test_equal_lengths_make_length_aware_losses_plain_ones() -> None:
    inputs = drawn(PAIRS, "ordinary") | {"chosen_length": np.full(BATCH, 4), "rejected_length": np.full(BATCH, 4)}
    for beta in BETAS:
        np.testing.assert_allclose(
            losses("sigmoid_norm", **inputs, beta=4 * beta), losses("dpo", **inputs, beta=beta), rtol=1e-12
        )
        np.testing.assert_allclose(
            losses("r_dpo_length", **inputs, beta=beta), losses("dpo", **inputs, beta=beta), rtol=1e-12
        )


@pytest.mark.parametrize("name", ["aot", "aot_unpaired"])
def test_optimal_transport_of_one_pair_is_dpo(name: str) -> None:
    inputs = drawn(PAIRS, "ordinary")
    for i in range(BATCH):
        one = {n: v[i : i + 1] if isinstance(v, np.ndarray) else v for n, v in inputs.items()}
        np.testing.assert_allclose(losses(name, **one), losses("dpo", **one), rtol=1e-12)


def test_squared_is_ipo_at_half_the_beta_and_rso_is_the_hinge() -> None:
    inputs = drawn(PAIRS, "ordinary")
    for beta in BETAS:
        squared = losses("squared", **inputs, beta=beta)
        np.testing.assert_allclose(squared, beta**2 * losses("ipo", **inputs, beta=beta / 2), rtol=1e-9)
        np.testing.assert_array_equal(losses("rso", **inputs, beta=beta), losses("hinge", **inputs, beta=beta))


def test_rdpo_averages_to_dpo_over_flipped_labels() -> None:
    inputs = drawn(PAIRS, "ordinary")
    other = {"chosen": "rejected", "rejected": "chosen"}
    flipped = {re.sub("chosen|rejected", lambda m: other[m[0]], n): v for n, v in inputs.items()}
    mixed = 0.9 * losses("rdpo", **inputs) + 0.1 * losses("rdpo", **flipped)
    np.testing.assert_allclose(mixed, losses("dpo", **inputs), rtol=1e-10)


def test_rdpo_keeps_falling_at_the_slope_of_its_flip_rate() -> None:
    def at(margin: float) -> float:
        inputs = drawn(PAIRS, "ordinary")
        inputs["policy_chosen_logps"] = inputs["reference_chosen_logps"] + margin
        inputs["policy_rejected_logps"] = inputs["reference_rejected_logps"]
        return float(losses("rdpo", **inputs, beta=1.0)[0])

    assert at(5000.0) - at(4000.0) == pytest.approx(-1000 * 0.1 / 0.8, rel=1e-9)


def test_kto_with_its_reference_point_at_zero_is_apo_zero_unpaired() -> None:
    inputs = drawn(UNPAIRED, "ordinary")
    for kl, beta in itertools.product((0.0, -3.0), BETAS):  # a negative estimate counts as 0
        found = losses("kto", **{**inputs, "kl_estimate": kl, "beta": beta})
        np.testing.assert_array_equal(found, losses("apo_zero_unpaired", **{**inputs, "beta": beta}))
    assert not np.allclose(losses("kto", **inputs), losses("apo_zero_unpaired", **inputs))


def as_singles(inputs: dict[str, Any]) -> dict[str, Any]:
    """The chosen responses of pairs as desirable examples, then the rejected ones as undesirable ones."""
    found: dict[str, Any] = {"desirable": np.arange(2 * BATCH) < BATCH}
    for side in ("policy", "reference"):
        found[f"{side}_logps"] = np.concatenate([inputs[f"{side}_{r}_logps"] for r in ("chosen", "rejected")])
    return found | {"running_log_ratio": inputs["running_log_ratio"]}


@pytest.mark.parametrize(("paired", "unpaired"), [("apo_zero", "apo_zero_unpaired"), ("bco_pair", "bco")])
def test_pair_losses_that_are_sums_over_both_responses(paired: str, unpaired: str) -> None:
    inputs = drawn(PAIRS, "ordinary")
    for beta in BETAS:
        halves = losses(unpaired, **as_singles(inputs), beta=beta).reshape(2, BATCH)
        np.testing.assert_allclose(losses(paired, **inputs, beta=beta), halves.sum(0), rtol=1e-12)


def test_uapo_without_uncertainty_is_bco_with_the_batch_for_its_running_mean() -> None:
    function = changed("uapo", {"0.1": "0.0"}, UNPAIRED.name)
    inputs = drawn(UNPAIRED, "ordinary")
    given = {n: torch.from_numpy(inputs[n]) for n in ("policy_logps", "reference_logps", "desirable")}
    found = function(**given, beta=0.3).numpy()
    inputs["running_log_ratio"] = (inputs["policy_logps"] - inputs["reference_logps"]).mean()
    np.testing.assert_allclose(found, losses("bco", **inputs, beta=0.3), rtol=1e-12)


def test_asft_is_its_short_form() -> None:
    """-(1 + lambda) log pw - lambda log(1 - pl) is -log pw plus lambda times both logistic terms."""
    inputs = drawn(PAIRS, "ordinary")
    pw, pl = (np.exp(inputs[f"policy_{s}_logps"] / inputs[f"{s}_length"]) for s in ("chosen", "rejected"))
    logistic = -np.log(1 / (1 + np.exp(-np.log(pw / (1 - pw))))) - np.log(1 / (1 + np.exp(np.log(pl / (1 - pl)))))
    np.testing.assert_allclose(losses("asft", **inputs), -np.log(pw) + logistic, rtol=1e-9)


def test_lrml_has_its_published_turning_points() -> None:
    z = np.linspace(-0.4, 0.4, 80_001)
    pairs = {
        n: np.zeros(z.size) for n in ("policy_rejected_logps", "reference_chosen_logps", "reference_rejected_logps")
    }
    values = losses("lrml", **pairs, policy_chosen_logps=z / 0.05, beta=0.05)
    slope = np.sign(np.diff(values))
    turns = z[1:-1][slope[1:] != slope[:-1]]
    np.testing.assert_allclose(turns, [-0.1186, 0.0720], atol=1e-4)
    assert values[np.abs(z).argmin()] == pytest.approx((np.log(2) + 1) / 2)


def test_pmpo_learns_from_one_kind_of_label_alone() -> None:
    inputs = drawn(UNPAIRED, "ordinary")
    for label, direction in ((True, -1), (False, 1)):
        _, gradients = call("pmpo", {**inputs, "desirable": np.full(BATCH, label)})
        np.testing.assert_allclose(gradients["policy_logps"], direction * 0.5 / BATCH, rtol=1e-12)
        np.testing.assert_allclose(gradients["sample_policy_logps"], -0.1 / BATCH, rtol=1e-12)
