"""All known objectives: against their published forms, in single and double precision, ordinary and extreme."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch

from evaluators.objectives import known_objectives
from evaluators.preference.contract import PAIRS, UNPAIRED
from sandbox.check import check_candidate, refusal
from sandbox.contract import Contract
from sandbox.gate import check_source
from sandbox.oracle import LossOracle
from sandbox.server import OracleServer
from tests.evaluators.published_forms import FORMS, HOLDING, Pair, Single
from tests.evaluators.test_objectives_trl import CASES
from tests.support.objective_calls import CONTRACTS, NAMES, call, contract_of

BATCH = 10
EXTREMES = (10.0, 100.0, 1e3, 1e4)
BETAS = (0.05, 0.1, 0.8)
# rows 1, 12-14, 16, 30, 36, 53 (two), 68, 76, 80, 81, 101, DiscoPOP's siblings, neighbours with a TRL oracle, classics
ROWS = {"lrml", "rso", "simpo", "dpo", "pmpo", "qrpo", "asft", "kto_pair", "kto", "vpo", "ipo", "mappo", "uapo", "rdpo"}
SIBLINGS = {"cell", "padll", "aqfl", "aql", "dbaql", "pfl"}
NEIGHBOURS = {
    "cdpo", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "aot", "aot_unpaired", "orpo", "cpo",
    "alphapo", "sigmoid_norm", "sft", "fdpo_forward_kl", "fdpo_js", "fdpo_alpha",
}  # fmt: skip
CLASSICS = {"exponential", "squared", "truncated_quadratic", "savage", "dpop", "r_dpo_length", "odpo"}
ROBUST = {"gce_pair", "dpo_forward_corrected", "chi_po", "cal_dpo", "beta_dpo"}
ASKED = ROWS | SIBLINGS | NEIGHBOURS | CLASSICS | ROBUST
ALSO = {"hinge", "apo_zero_unpaired", "bco", "kto_pair_discopop"}
BOTH = pytest.mark.parametrize(("contract", "name"), NAMES)


@pytest.fixture(scope="module")
def server():
    torch.set_num_threads(1)
    with OracleServer() as running:
        yield running


def test_the_library_is_complete() -> None:
    assert len(ASKED) == 49
    assert sorted(name for _, name in NAMES) == sorted(ASKED | ALSO)


def test_every_objective_has_an_oracle_that_we_did_not_write() -> None:
    """A published form for each, and recorded values of TRL for each that TRL has."""
    assert set(FORMS) == {name for _, name in NAMES}
    with_trl = {c.name for c in CASES}
    assert with_trl >= NEIGHBOURS
    assert with_trl >= {"dpo", "ipo", "hinge", "rso", "rdpo", "lrml", "simpo", "kto", "bco", "apo_zero_unpaired"}


# --- metadata


@BOTH
def test_documentation_is_complete(contract: str, name: str) -> None:
    objective = known_objectives(contract)[name]
    doc = ast.get_docstring(ast.parse(objective.candidate.source)) or ""
    assert objective.contract == contract
    assert objective.summary
    assert objective.equation
    assert "L" in objective.equation
    assert 2017 <= objective.year <= 2026
    assert "arXiv:" in objective.paper or ".pdf" in objective.paper
    assert str(objective.year) in objective.paper
    if name not in {"dpo", "hinge", "ipo"}:  # older than these lines, and an id is a hash of the text
        assert "\nInputs: " in doc
        assert "\nDefaults: " in doc
    reads_more = {*objective.inputs} & {*CONTRACTS[contract].optional}
    assert objective.family == ("F3" if contract == UNPAIRED.name else "F2" if reads_more else "F1")
    for optional in reads_more:
        assert optional in doc
    assert objective.inputs == check_source(objective.candidate, CONTRACTS[contract]).parameters


def test_uncertain_forms_say_so() -> None:
    assert {n for c, n in NAMES if known_objectives(c)[n].unsure} == {"asft", "chi_po", "vpo", "uapo"}


@BOTH
def test_each_passes_the_gate_and_the_probe(contract: str, name: str, server: OracleServer) -> None:
    gate, probe = check_candidate(server, known_objectives(contract)[name].candidate, CONTRACTS[contract])
    assert refusal(gate, probe) is None
    assert probe is not None
    assert probe.properties is not None
    assert len(probe.curve) > 0


# --- values


def drawn(contract: Contract, kind: str, seed: int = 3) -> dict[str, Any]:
    """A batch of inputs, float64; log-ratios are ordinary or extreme."""
    rng = np.random.default_rng([seed, kind == "extreme"])
    found: dict[str, Any] = {}

    def logps(policy: str, reference: str) -> None:
        found[reference] = rng.uniform(-60, -2, BATCH)
        ratio = rng.normal(0, 3, BATCH)
        if kind == "extreme":
            ratio = rng.choice([-1.0, 1.0], BATCH) * rng.choice(EXTREMES, BATCH)
        found[policy] = found[reference] + ratio
        if kind == "ordinary":
            found[policy] = np.minimum(found[policy], -0.05)

    if contract is PAIRS:
        for side in ("chosen", "rejected"):
            logps(f"policy_{side}_logps", f"reference_{side}_logps")
            found[f"{side}_length"] = rng.integers(1, 40, BATCH)
            found[f"{side}_score"] = rng.uniform(-2, 2, BATCH)
    else:
        logps("policy_logps", "reference_logps")
        logps("sample_policy_logps", "sample_reference_logps")
        found["desirable"] = rng.random(BATCH) < 0.6
        found["score_quantile"] = rng.random(BATCH)
    return found | {"running_log_ratio": -0.7, "kl_estimate": 0.45, "moving_margin": 0.9}


def single_precision(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Real arrays rounded to float32."""
    return {
        n: v.astype(np.float32) if isinstance(v, np.ndarray) and v.dtype == np.float64 else v for n, v in inputs.items()
    }


def examples(contract: Contract, inputs: Mapping[str, Any]) -> list[Any]:
    """The same batch for the published forms."""

    def at(name: str, i: int) -> Any:
        return mp.mpf(float(inputs[name][i]))

    shared = mp.mpf(float(inputs["running_log_ratio"]))
    if contract is PAIRS:
        return [
            Pair(
                at("policy_chosen_logps", i), at("policy_rejected_logps", i), at("reference_chosen_logps", i),
                at("reference_rejected_logps", i), int(inputs["chosen_length"][i]), int(inputs["rejected_length"][i]),
                at("chosen_score", i), at("rejected_score", i), shared,
                mp.mpf(float(inputs["moving_margin"])),
            )
            for i in range(BATCH)
        ]  # fmt: skip
    return [
        Single(
            at("policy_logps", i), at("reference_logps", i), bool(inputs["desirable"][i]), at("score_quantile", i),
            at("sample_policy_logps", i), at("sample_reference_logps", i), mp.mpf(inputs["kl_estimate"]), shared,
        )
        for i in range(BATCH)
    ]  # fmt: skip


def published(name: str, inputs: Mapping[str, Any], beta: float) -> list[Any]:
    return FORMS[name](examples(contract_of(name), inputs), mp.mpf(beta))


@pytest.mark.parametrize("beta", BETAS)
@BOTH
def test_losses_equal_the_published_form(contract: str, name: str, beta: float) -> None:
    inputs = drawn(CONTRACTS[contract], "ordinary")
    found, _ = call(name, {**inputs, "beta": beta})
    expected = np.array([float(v) for v in published(name, inputs, beta)])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("beta", BETAS)
@BOTH
def test_gradients_equal_differences_of_the_published_form(contract: str, name: str, beta: float) -> None:
    """Where the paper stops a gradient, the constant is held in the difference too."""
    inputs = drawn(CONTRACTS[contract], "ordinary")
    _, gradients = call(name, {**inputs, "beta": beta})
    held = [examples(CONTRACTS[contract], inputs)] if name in HOLDING else []
    step = 1e-12
    for leaf, gradient in gradients.items():
        for i in (0, BATCH - 1):
            up, down = ({**inputs, leaf: inputs[leaf].copy()} for _ in range(2))
            means = []
            for moved, sign in ((up, 1), (down, -1)):
                batch = examples(CONTRACTS[contract], moved)
                batch[i] = shifted(batch[i], leaf, sign * mp.mpf(step))
                means.append(mp.fsum(FORMS[name](batch, mp.mpf(beta), *held)) / BATCH)
            slope = float((means[0] - means[1]) / (2 * mp.mpf(step)))
            assert float(gradient[i]) == pytest.approx(slope, rel=1e-6, abs=1e-9), (leaf, i)


def shifted(example: Any, leaf: str, by: Any) -> Any:
    """An example with one of its policy log-probs moved."""
    from dataclasses import replace

    names = {
        "policy_chosen_logps": "lw",
        "policy_rejected_logps": "ll",
        "policy_logps": "logp",
        "sample_policy_logps": "sample",
    }
    return replace(example, **{names[leaf]: getattr(example, names[leaf]) + by})


@pytest.mark.parametrize("seed", range(8))
@BOTH
def test_single_precision_agrees_with_double(contract: str, name: str, seed: int) -> None:
    """To 1e-4 of each loss, or of the batch's mean where a loss itself is close to 0."""
    inputs = single_precision(drawn(CONTRACTS[contract], "ordinary", seed))
    doubled = {
        n: v.astype(np.float64) if isinstance(v, np.ndarray) and v.dtype == np.float32 else v for n, v in inputs.items()
    }
    for beta in BETAS:
        single, gradients = call(name, {**inputs, "beta": beta})
        double, exact = call(name, {**doubled, "beta": beta})
        assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
        scale = float(double.abs().mean())
        np.testing.assert_allclose(single.double(), double, rtol=1e-4, atol=1e-4 * scale)
        for leaf in gradients:
            size = float(exact[leaf].abs().max())
            np.testing.assert_allclose(gradients[leaf].double(), exact[leaf], rtol=1e-3, atol=1e-3 * size, err_msg=leaf)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@BOTH
def test_extreme_log_ratios_give_no_nan_and_the_formula_where_it_is_finite(
    contract: str, name: str, dtype: Any
) -> None:
    largest = 1e30 if dtype is torch.float32 else 1e300
    compared = 0
    for seed in range(6):
        inputs = drawn(CONTRACTS[contract], "extreme", seed)
        rounded = {
            n: torch.from_numpy(v).to(dtype) if isinstance(v, np.ndarray) and v.dtype == np.float64 else v
            for n, v in inputs.items()
        }
        for beta in BETAS:
            found, gradients = call(name, {**rounded, "beta": beta})
            assert not bool(found.isnan().any()), (seed, beta, found)
            assert not any(bool(g.isnan().any()) for g in gradients.values()), (seed, beta, gradients)
            exact = {n: v.double().numpy() if isinstance(v, torch.Tensor) else v for n, v in rounded.items()}
            if beyond_log_probs(name, exact):
                continue
            clear = clear_margins(CONTRACTS[contract], exact)
            for ours, value, usable in zip(found.tolist(), published(name, exact, beta), clear, strict=True):
                if usable and abs(value) < largest and not capped(name, value):
                    compared += 1
                    assert ours == pytest.approx(float(value), rel=2e-3, abs=2e-2 if dtype is torch.float32 else 1e-6)
    assert compared > 0 or name in {"asft", "orpo"}


def clear_margins(contract: Contract, inputs: Mapping[str, Any]) -> list[bool]:
    """For each example, whether rounding of huge log-ratios leaves its margin's sign and size alone."""
    if contract is not PAIRS:
        return [True] * BATCH
    ratios = [inputs[f"policy_{s}_logps"] - inputs[f"reference_{s}_logps"] for s in ("chosen", "rejected")]
    found: list[bool] = (np.abs(ratios[0] - ratios[1]) > 1e-3 * np.abs(ratios[0])).tolist()
    return found


def beyond_log_probs(name: str, inputs: Mapping[str, Any]) -> bool:
    """Odds need probabilities: a positive log-prob has none. (Ours are clamped and stay numbers.)"""
    return (
        name in {"asft", "orpo"}
        and max(inputs["policy_chosen_logps"].max(), inputs["policy_rejected_logps"].max()) > -0.1
    )


def capped(name: str, value: Any) -> bool:
    """Whether a loss lies where its source caps an exponent, in the units of a loss at beta 0.05."""
    return name in {"fdpo_forward_kl", "fdpo_alpha", "alphapo"} and abs(value) > 1e30


@BOTH
def test_the_oracle_child_computes_the_same(contract: str, name: str, server: OracleServer) -> None:
    spec, objective = CONTRACTS[contract], known_objectives(contract)[name]
    inputs = drawn(spec, "ordinary")
    found, gradients = call(name, {**inputs, "beta": 0.3})
    with LossOracle(server, objective.candidate, spec, objective.inputs) as oracle:
        tensors = {
            n: torch.from_numpy(np.asarray(v, np.float64))[None] for n, v in inputs.items() if isinstance(v, np.ndarray)
        }
        scalars = {s.name: [float(inputs.get(s.name, s.default))] for s in spec.scalars} | {"beta": [0.3]}
        answer = oracle.evaluate(tensors, scalars)
    torch.testing.assert_close(answer.losses[0], found, rtol=0, atol=0)
    for i, gradient in enumerate(gradients.values()):
        torch.testing.assert_close(answer.gradients[0, i], gradient, rtol=0, atol=0)


# --- invariants


FUNCTIONS_OF_THE_MARGIN = {
    "dpo", "hinge", "rso", "ipo", "cdpo", "rdpo", "exponential", "squared", "truncated_quadratic", "savage", "cell", "padll",
    "lrml", "exo_pair", "aql", "aqfl", "dbaql", "odpo", "r_dpo_length", "gce_pair", "dpo_forward_corrected",
    "beta_dpo",
}  # fmt: skip
RISING = {
    "ipo", "squared", "cdpo", "exo_pair", "lrml", "padll", "sppo_hard", "nca_pair", "apo_down", "aql", "cal_dpo", "beta_dpo",
}  # fmt: skip
AT_ZERO = {  # loss where policy and reference agree, at any beta
    "dpo": math.log(2), "hinge": 1, "rso": 1, "cdpo": math.log(2), "rdpo": math.log(2), "exponential": 1, "squared": 1,
    "truncated_quadratic": 1, "savage": 0.25, "cell": (1 + math.log(2)) / 2, "padll": 0.9 * math.log(2),
    "lrml": (math.log(2) + 1) / 2, "nca_pair": 2 * math.log(2), "apo_zero": 1, "apo_down": 1, "kto_pair": 0.5,
    "aot": math.log(2), "aot_unpaired": math.log(2), "fdpo_forward_kl": math.log(2), "fdpo_js": math.log(2),
    "fdpo_alpha": math.log(2), "vpo": math.log(2), "dpop": math.log(2), "sigmoid_norm": math.log(2), "mappo": math.log(2),
    "apo_zero_unpaired": 0.5, "uapo": math.log(2), "dbaql": (math.log(2) + 1) / 2,
    "exo_pair": -0.5 * math.log(4 * 0.001 * 0.999), "gce_pair": (1 - 0.5**0.7) / 0.7, "dpo_forward_corrected": math.log(2),
    "chi_po": math.log(2), "kto_pair_discopop": 0.5, "beta_dpo": math.log(2),
}  # fmt: skip


@pytest.mark.parametrize("name", AT_ZERO)
def test_loss_where_policy_and_reference_agree(name: str) -> None:
    contract = contract_of(name)
    inputs = drawn(contract, "ordinary")
    for spec in contract.tensors:
        if spec.carries_gradient:
            inputs[spec.name] = inputs[spec.name.replace("policy", "reference")].copy()
    if name == "aot":
        assert np.unique(inputs["reference_chosen_logps"]).size == BATCH
    found, _ = call(name, {**inputs, "beta": 0.3})
    np.testing.assert_allclose(found.numpy(), AT_ZERO[name], rtol=1e-12)


@pytest.mark.parametrize("name", [n for c, n in NAMES if c == PAIRS.name])
def test_shifting_both_log_ratios_leaves_functions_of_the_margin_alone(name: str) -> None:
    inputs = drawn(PAIRS, "ordinary")
    moved = {n: v - 1.5 if n.startswith("policy") else v for n, v in inputs.items()}
    same = np.allclose(call(name, inputs)[0], call(name, moved)[0], rtol=1e-9, atol=1e-12)
    reference_free = {"cpo", "simpo", "alphapo"}  # margins of their own
    also = {"aot", "vpo", "aot_unpaired", "pfl"}
    if name in FUNCTIONS_OF_THE_MARGIN or name in also - {"vpo"}:
        assert same
    elif name not in reference_free | also:
        assert not same


@pytest.mark.parametrize(("ahead", "used"), [(0.0, 0.1), (2.0, 0.22), (-1.0, 0.04), (-5.0, 0.001)])
def test_beta_dpo_is_dpo_at_the_beta_that_the_batch_asks_for(ahead: float, used: float) -> None:
    inputs = drawn(PAIRS, "ordinary")
    ratios = [inputs[f"policy_{s}_logps"] - inputs[f"reference_{s}_logps"] for s in ("chosen", "rejected")]
    inputs["moving_margin"] = float((ratios[0] - ratios[1]).mean()) - ahead
    ours, theirs = call("beta_dpo", {**inputs, "beta": 0.1}), call("dpo", {**inputs, "beta": used})
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-9, atol=0)
    for leaf, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][leaf], gradient, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", [n for c, n in NAMES if c == PAIRS.name and n not in RISING])
def test_losses_do_not_rise_with_the_margin(name: str) -> None:
    previous = None
    for margin in np.linspace(-30, 30, 61):
        flat = {n: np.full(2, -45.0) for n in ("reference_chosen_logps", "reference_rejected_logps")}
        flat |= {
            "policy_chosen_logps": np.full(2, -45.0 + margin / 2),
            "policy_rejected_logps": np.full(2, -45.0 - margin / 2),
        }
        flat |= {f"{s}_length": np.full(2, 9) for s in ("chosen", "rejected")}
        flat |= {"chosen_score": np.full(2, 1.0), "rejected_score": np.full(2, 0.25)}
        mean = float(call(name, {**flat, "beta": 0.1, "running_log_ratio": 0.0, "moving_margin": 0.0})[0].mean())
        assert previous is None or mean <= previous + 1e-12, (margin, mean, previous)
        previous = mean


@BOTH
def test_the_order_of_examples_does_not_matter(contract: str, name: str) -> None:
    """Losses follow their examples, or, where they belong to ranks, stay the same; the mean never changes."""
    inputs = drawn(CONTRACTS[contract], "ordinary")
    order = np.random.default_rng(5).permutation(BATCH)
    turned = {n: v[order] if isinstance(v, np.ndarray) else v for n, v in inputs.items()}
    before, after = call(name, inputs)[0].numpy(), call(name, turned)[0].numpy()
    expected = before if name in {"aot", "aot_unpaired"} else before[order]
    np.testing.assert_allclose(after, expected, rtol=1e-9, atol=1e-12)
