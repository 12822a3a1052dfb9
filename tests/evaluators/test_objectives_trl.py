"""Known objectives against what TRL computed, recorded by `vectors/make_trl_vectors.py`; and TRL's traps.

Recorded are per-example losses and gradients of 0.28.0, and means and gradients of 1.16.0, on random and extreme log-ratios
in three precisions. Ours run on the same inputs, in float32 where TRL ran in bfloat16: that is what the oracle does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.objective_calls import call, losses

VECTORS = np.load(Path(__file__).parent / "vectors" / "trl_vectors.npz")
RECORDS: list[dict[str, Any]] = json.loads(bytes(VECTORS["records"]))
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7}
OLD, NEW = "0.28.0", "1.16.0"
UNPAIRED = {"kto", "apo_zero_unpaired", "bco"}


@dataclass(frozen=True)
class Case:
    """An objective of ours and the loss of TRL that it must equal.

    Attributes:
        per_token: TRL's is of log-probs per token, so ours is given those.
        minus: ours contains this other objective too, with this sign: (name, sign of what remains).
        single: TRL computes part of it in float32 whatever it is given.
        exponent: factor of a log-ratio (or of a log-prob per token) in an exponential that TRL caps elsewhere; only pairs
            below 75 are compared.
    """

    name: str
    version: str
    loss: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    per_token: bool = False
    minus: tuple[str, float] | None = None
    single: bool = False
    exponent: float = 0.0


SMOOTH = {"label_smoothing": 0.1}
JS, FORWARD = {"f_divergence": "js_divergence"}, {"f_divergence": "forward_kl"}
HALF, FULL = ({"f_divergence": "alpha_divergence", "alpha": a} for a in (0.5, 1.0))
SAME_NAME = (
    "hinge",
    "nca_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "kto",
    "apo_zero_unpaired",
)
CASES = [
    *(Case(name, version, name) for name in SAME_NAME for version in (OLD, NEW)),
    *(Case("dpo", version, "sigmoid") for version in (OLD, NEW)),
    *(Case("rso", version, "hinge") for version in (OLD, NEW)),
    *(Case("rdpo", version, "robust", SMOOTH) for version in (OLD, NEW)),
    *(Case("lrml", version, "discopop") for version in (OLD, NEW)),
    *(Case("fdpo_js", version, "sigmoid", JS) for version in (OLD, NEW)),
    *(Case("fdpo_alpha", version, "sigmoid", HALF, exponent=0.5) for version in (OLD, NEW)),
    Case("fdpo_forward_kl", OLD, "sigmoid", FULL, exponent=1.0),
    Case("fdpo_forward_kl", NEW, "sigmoid", FORWARD, exponent=1.0),
    Case("cdpo", OLD, "sigmoid", SMOOTH),
    Case("ipo", OLD, "ipo"),
    Case("ipo", NEW, "ipo", per_token=True),
    Case("exo_pair", OLD, "exo_pair"),
    Case("exo_pair", NEW, "exo_pair", {"label_smoothing": 0.001}, single=True),
    Case("bco_pair", OLD, "bco_pair"),
    Case("bco_pair", NEW, "bco_pair"),
    Case("bco", OLD, "bco"),
    Case("sigmoid_norm", NEW, "sigmoid_norm"),
    Case("sft", NEW, "sft"),
    Case("simpo", OLD, "cpo_simpo", {"alpha": 0.0}),
    Case("alphapo", OLD, "cpo_simpo", {"alpha": 0.25}, exponent=0.25),
    Case("cpo", OLD, "cpo_sigmoid", {"alpha": 0.0}, minus=("sft", 1.0)),  # its trainer adds the loss per token
    Case(
        "orpo", OLD, "odds_ratio", minus=("sft", -1.0), single=True
    ),  # its trainer subtracts this from the loss per token
]


def records(case: Case) -> list[dict[str, Any]]:
    found = []
    for record in RECORDS:
        settings = {k: v for k, v in record["settings"].items() if k != "running_mean"}
        key = (record["version"], record["loss"], settings)
        if record["kind"] != "refusal" and key == (case.version, case.loss, dict(case.settings)):
            found.append(record)
    assert len(found) >= 8, case
    return found


def ours(record: Mapping[str, Any], per_token: bool = False) -> dict[str, Any]:
    """The recorded inputs by contract name, in the precision that ours run in."""
    raw = {
        n: VECTORS[f"inputs/{record['kind']}/{record['dtype']}/{n}"]
        for n in ("chosen", "rejected", "ref_chosen", "ref_rejected")
    }
    lengths = {
        s: VECTORS[f"inputs/{record['kind']}/{record['dtype']}/{s}_length"].astype(np.int64)
        for s in ("chosen", "rejected")
    }
    dtype = torch.float64 if record["dtype"] == "float64" else torch.float32
    logps = {n: torch.from_numpy(v).to(dtype) for n, v in raw.items()}
    if per_token:
        logps = {n: v / torch.from_numpy(lengths[n.removeprefix("ref_")]) for n, v in logps.items()}
    shared = {"beta": record["beta"], "kl_estimate": record.get("kl", 0.0)}
    shared["running_log_ratio"] = record["settings"].get("running_mean", 0.0) / record["beta"]
    both = {"policy_logps": torch.cat([logps["chosen"], logps["rejected"]])}
    both["reference_logps"] = torch.cat([logps["ref_chosen"], logps["ref_rejected"]])
    both["desirable"] = torch.arange(2 * len(raw["chosen"])) < len(raw["chosen"])
    pairs = {f"policy_{s}_logps": logps[s] for s in lengths} | {
        f"reference_{s}_logps": logps[f"ref_{s}"] for s in lengths
    }
    return shared | both | pairs | {f"{s}_length": lengths[s] for s in lengths}


def computed(case: Case, record: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Our losses (B,) and gradients (2, N) of their mean with respect to chosen and rejected log-probs."""
    inputs = ours(record, case.per_token)
    found, gradients = call(case.name, inputs)
    stacked = torch.stack([*gradients.values()]) if len(gradients) == 2 else gradients["policy_logps"].view(2, -1)
    if case.minus:
        other, sign = case.minus
        others, other_gradients = call(other, inputs)
        found, stacked = sign * (found - others), sign * (stacked - torch.stack([*other_gradients.values()]))
    if case.per_token:  # d/d(sum of log-probs), as TRL has it
        stacked = stacked / torch.from_numpy(np.stack([inputs["chosen_length"], inputs["rejected_length"]]))
    return found.double().numpy(), stacked.double().numpy()


def comparable(case: Case, record: Mapping[str, Any]) -> np.ndarray:
    """(N,) pairs for which neither side caps an exponential."""
    if not case.exponent:
        return np.full(len(VECTORS["inputs/random/float64/chosen"]), True)
    inputs = ours(record)
    sizes = []
    for side in ("chosen", "rejected"):
        ratio = inputs[f"policy_{side}_logps"] - inputs[f"reference_{side}_logps"]
        if case.name == "alphapo":
            ratio = inputs[f"policy_{side}_logps"] / torch.from_numpy(inputs[f"{side}_length"])
        sizes.append(-case.exponent * ratio.double().numpy())
    return np.maximum(*sizes) < 75


def tolerance(case: Case, record: Mapping[str, Any], found: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """(B,) how far rounding of the inputs and of a few operations can move each loss, as `gradients` say."""
    epsilon, inputs = EPSILON["float32" if case.single else record["dtype"]], ours(record)
    epsilon = max(epsilon, EPSILON[record["dtype"]])
    largest = np.maximum(*(np.abs(inputs[f"policy_{s}_logps"].numpy()) for s in ("chosen", "rejected"))) + 60.0
    moved = 4 * epsilon * np.tile(largest, len(found) // len(largest))
    slope = record["beta"] + len(found) * np.abs(gradients).reshape(-1, len(found)).sum(0)
    curvature = (1.0 + 2 * record["beta"] ** 2) * moved**2
    return slope * moved + curvature + 16 * epsilon * (np.abs(found) + 1.0)


@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: "-".join([c.name, c.version, c.loss, *map(str, c.settings.values())])
)
def test_losses_and_gradients_equal_those_of_trl(case: Case) -> None:
    compared = 0
    for record in records(case):
        found, gradients = computed(case, record)
        assert not np.isnan(found).any(), record
        assert not np.isnan(gradients).any(), record
        where, allowed = comparable(case, record), tolerance(case, record, found, gradients)
        message = f"{record['dtype']} {record['kind']} beta {record['beta']}"
        if "losses" in record["arrays"]:
            theirs = VECTORS[record["arrays"]["losses"]]
            same = np.isfinite(theirs) & np.tile(where, len(theirs) // len(where))
            assert (np.abs(found - theirs)[same] <= allowed[same]).all(), (message, found, theirs, allowed)
            compared += int(same.sum())
        elif where.all() and np.isfinite(VECTORS[record["arrays"]["mean"]]):
            assert abs(found.mean() - float(VECTORS[record["arrays"]["mean"]])) <= allowed.mean(), message
            compared += len(found)
        if record["dtype"] != "bfloat16" and record["kind"] == "random":
            theirs = np.stack([VECTORS[record["arrays"][f"{s}_gradient"]] for s in ("chosen", "rejected")])
            rtol = 1e-9 if record["dtype"] == "float64" and not case.single else 2e-4
            scale = rtol * np.abs(gradients).max()
            np.testing.assert_allclose(gradients[:, where], theirs[:, where], rtol=rtol, atol=scale, err_msg=message)
    assert compared >= 48


def one(version: str, loss: str, kind: str = "random", beta: float = 0.1, **settings: Any) -> dict[str, Any]:
    """The float64 record of these settings."""
    (found,) = (
        r
        for r in RECORDS
        if (r["version"], r["loss"], r["kind"], r["dtype"]) == (version, loss, kind, "float64")
        and r["settings"] == settings
        and r["beta"] == beta
    )
    return found


def theirs(record: Mapping[str, Any], what: str = "losses") -> np.ndarray:
    return VECTORS[record["arrays"][what]]


def test_trap_a_ipo_takes_sums_in_0_28_and_divides_by_lengths_later() -> None:
    old, new = one(OLD, "ipo"), one(NEW, "ipo")
    sums = losses("ipo", **ours(old))
    np.testing.assert_allclose(sums, theirs(old), rtol=1e-12)
    assert sums.mean() != pytest.approx(float(theirs(new, "mean")), rel=0.05)
    assert losses("ipo", **ours(new, per_token=True)).mean() == pytest.approx(float(theirs(new, "mean")), rel=1e-12)


def test_trap_b_trl_does_not_clamp_the_weights_of_wpo() -> None:
    # each weight is exp(mean over tokens of log p - log sum p^2); its stand-in has that mean far above 0
    record = one(NEW, "sigmoid", use_weighting=True)
    inputs = ours(record)
    weights = np.ones(len(inputs["chosen_length"]))
    for side in ("chosen", "rejected"):
        weights *= np.exp((inputs[f"policy_{side}_logps"].numpy() + 200.0) / inputs[f"{side}_length"])
    assert (weights > 1).all()  # the authors' code has them at 1 here
    unclamped, clamped = (float((w * losses("dpo", **inputs)).mean()) for w in (weights, np.minimum(weights, 1)))
    assert float(theirs(record, "mean")) == pytest.approx(unclamped, rel=1e-12)
    assert float(theirs(record, "mean")) > 1e3 * clamped


def test_trap_c_label_smoothing_is_ignored_later_and_bco_pair_loses_its_running_mean() -> None:
    smoothed, ignored = one(OLD, "sigmoid", label_smoothing=0.1), one(NEW, "sigmoid", label_smoothing=0.1)
    np.testing.assert_allclose(losses("cdpo", **ours(smoothed)), theirs(smoothed), rtol=1e-12)
    assert losses("dpo", **ours(ignored)).mean() == pytest.approx(float(theirs(ignored, "mean")), rel=1e-12)
    (old,) = [
        r
        for r in records(Case("bco_pair", OLD, "bco_pair"))
        if r["dtype"] == "float64" and r["kind"] == "random" and r["beta"] == 0.1
    ]
    assert old["settings"]["running_mean"] != 0
    new = one(NEW, "bco_pair")
    assert losses("bco_pair", **ours(new)).mean() == pytest.approx(float(theirs(new, "mean")), rel=1e-12)
    assert theirs(old).mean() != pytest.approx(float(theirs(new, "mean")), rel=1e-3)


def test_the_running_mean_of_trl_is_the_mean_over_steps() -> None:
    for record in records(Case("bco_pair", OLD, "bco_pair")):
        if record["dtype"] == "float64":
            inputs = ours(record)
            ratios = [inputs[f"policy_{s}_logps"] - inputs[f"reference_{s}_logps"] for s in ("chosen", "rejected")]
            batch = record["beta"] * float(torch.cat(ratios).mean())
            assert record["settings"]["running_mean"] == pytest.approx((1.5 - 0.25 + batch) / 3, rel=1e-6)


def test_trap_d_exo_without_smoothing_is_changed_silently_then_refused() -> None:
    silent, refused = (r for r in RECORDS if r["loss"] == "exo_pair" and r["kind"] == "refusal")
    assert (silent["version"], silent["became"]) == (OLD, 0.001)
    assert refused["version"] == NEW
    assert "Label smoothing must be greater than 0" in refused["refused"]


def test_trap_e_kto_pair_is_gone_from_both() -> None:
    gone = [r for r in RECORDS if r["loss"] == "kto_pair"]
    assert [r["version"] for r in gone] == [OLD, NEW]
    assert all("Unknown loss type" in r["refused"] for r in gone)


def test_trap_f_sft_is_a_mean_over_the_tokens_of_the_batch() -> None:
    record = one(NEW, "sft")
    inputs = ours(record)
    logps, lengths = inputs["policy_chosen_logps"].numpy(), inputs["chosen_length"]
    mean = float(theirs(record, "mean"))
    assert mean == pytest.approx(-logps.sum() / lengths.sum(), rel=1e-12)
    assert losses("sft", **inputs).mean() == pytest.approx(mean, rel=1e-12)
    for other in (-logps.mean(), -(logps / lengths).mean()):  # per response, and mean of means
        assert mean != pytest.approx(other, rel=0.01)


def test_trl_itself_is_not_a_number_where_lrml_is_finite() -> None:
    record = one(OLD, "discopop", "extreme", 1.5)
    assert np.isnan(theirs(record)).any()
    assert np.isfinite(losses("lrml", **ours(record))).all()
