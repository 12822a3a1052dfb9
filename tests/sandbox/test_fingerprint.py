"""Fingerprints: the same for a loss written differently, different for another one, and a known one at any beta is found."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.preference.contract import PAIRS
from sandbox.candidate import Candidate
from sandbox.contract import Conditions
from sandbox.fingerprint import DUPLICATE_DISTANCE, calls, distance, distances, fingerprint, stack
from sandbox.known import KnownLosses, tables_key
from sandbox.oracle import LossOracle
from sandbox.reports import Fingerprint
from sandbox.server import OracleServer
from tests.support.losses import KNOWN, body, expression, rescaled

CONDITIONS = Conditions()  # drawn anew each time
FACTORS = (1 / 16, 0.11, 0.15, 2.0, 3.7, 15.9)


@pytest.fixture(scope="module")
def known(server: OracleServer) -> KnownLosses:
    return KnownLosses(server, PAIRS, {name: (c, PAIRS.required) for name, c in KNOWN.items()}, CONDITIONS)


def of(server: OracleServer, candidate: Candidate) -> Fingerprint:
    with LossOracle(server, candidate, PAIRS, PAIRS.required) as oracle:
        return fingerprint(oracle, CONDITIONS)


@pytest.mark.parametrize(
    ("name", "rewritten"),
    [
        ("dpo", "F.softplus(-beta * d)"),
        ("dpo", "3.5 * torch.log1p(torch.exp(-beta * d)) - 7.0"),
        ("dpo", "F.binary_cross_entropy_with_logits(beta * d, torch.ones_like(d), reduction='none')"),
        ("hinge", "(1 - beta * d).clamp(min=0) * 2 + 1"),
        ("hinge", "torch.where(beta * d < 1, 1 - beta * d, torch.zeros_like(d))"),
        ("ipo", "(1 - 2 * beta * d) ** 2"),
        ("ipo", "d * d - d / beta"),
        (
            "lrml",
            "F.softplus(-beta * d) + torch.sigmoid(20 * beta * d) * (torch.exp(-beta * d) - F.softplus(-beta * d))",
        ),
    ],
)
def test_rewritten_scaled_and_shifted_losses_are_the_same(
    name: str, rewritten: str, server: OracleServer, known: KnownLosses
) -> None:
    found = of(server, expression(rewritten))
    assert distance(found, of(server, KNOWN[name])) < DUPLICATE_DISTANCE
    match = known.match(found)
    assert match is not None
    assert match.describe(PAIRS.scale_scalar) == name


def test_different_losses_differ_and_distance_is_symmetric(server: OracleServer) -> None:
    prints = {name: of(server, c) for name, c in KNOWN.items()}
    for a in prints:
        for b in prints:
            gap = distance(prints[a], prints[b])
            assert gap == distance(prints[b], prints[a])
            assert (gap == 0.0) if a == b else (gap > 100 * DUPLICATE_DISTANCE)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", KNOWN)
def test_a_rescaled_beta_is_found(name: str, factor: float, server: OracleServer, known: KnownLosses) -> None:
    match = known.match(of(server, rescaled(KNOWN[name], factor)))
    assert match is not None
    assert match.name == name
    assert match.scale == pytest.approx(factor, rel=1e-4)
    assert match.describe("beta") == f"{name}, beta x {factor:.4g}"


@given(st.sampled_from(sorted(KNOWN)), st.floats(math.log(1 / 15), math.log(15)))
@settings(max_examples=12, deadline=None)
def test_any_rescaled_beta_is_found(known: KnownLosses, server: OracleServer, name: str, log_factor: float) -> None:
    match = known.match(of(server, rescaled(KNOWN[name], math.exp(log_factor))))
    assert match is not None
    assert match.name == name
    assert match.scale == pytest.approx(math.exp(log_factor), rel=1e-3)


@pytest.mark.parametrize(
    "near_miss",
    [
        "-F.logsigmoid(beta * d) + 0.05 * torch.exp(-beta * d)",
        "-F.logsigmoid(beta * d) + 0.002 * (beta * d) ** 2",
        "-F.logsigmoid(beta * d - 0.1)",
        "-F.logsigmoid(beta * beta * d)",
        "-beta * d",
        "torch.relu(1 - beta * d / 64)",  # a known one, but beyond the range of scales
        "torch.relu(1 - beta * d) ** 2",
        "(d - 1 / (2 * beta)) ** 2 + 0.01 * d.abs()",
        "torch.exp(-beta * d)",
        "-policy_chosen_logps * beta",
    ],
)
def test_near_misses_are_new(near_miss: str, server: OracleServer, known: KnownLosses) -> None:
    assert known.match(of(server, expression(near_miss))) is None


def test_a_straight_line_is_no_hinge_at_a_small_beta(server: OracleServer, known: KnownLosses) -> None:
    line, hinge = of(server, expression("-beta * d")), of(server, rescaled(KNOWN["hinge"], 1 / 16))
    assert distance(line, hinge) > DUPLICATE_DISTANCE


def test_non_finite_entries_are_masked_and_masks_compared(server: OracleServer) -> None:
    holed = of(server, body("return torch.where(d > 0, d * float('nan'), -beta * d)"))
    entries = [v for row in holed.values for v in row]
    assert any(map(math.isnan, entries))
    assert not all(map(math.isnan, entries))
    assert distance(holed, holed) == 0.0
    assert distance(holed, of(server, expression("-beta * d"))) == math.inf
    assert distance(holed, replace(holed, values=holed.values[:1])) == math.inf
    assert distance(holed, replace(holed, conditions=Conditions())) == math.inf


def test_distances_compare_with_a_whole_table(server: OracleServer) -> None:
    prints = [of(server, c) for c in KNOWN.values()]
    table = distances(stack(prints[:1]), stack(prints))
    assert table.tolist() == pytest.approx([distance(prints[0], p) for p in prints])
    assert bool(torch.isinf(distances(stack(prints[:1]), stack([Fingerprint(p.values[:1]) for p in prints]))).all())


def test_inputs_depend_on_the_secret_alone_and_hold_what_the_contract_says() -> None:
    conditions = Conditions(batch=17, scales=(0.1, 0.5, 2.0, 9.0))
    drawn, again = calls(PAIRS, conditions), calls(PAIRS, conditions)
    assert all(torch.equal(t, again.tensors[name]) for name, t in drawn.tensors.items())
    other = calls(PAIRS, replace(conditions, seed=conditions.seed + 100))
    assert not any(torch.equal(t, other.tensors[name]) for name, t in drawn.tensors.items())
    for name, values in drawn.tensors.items():
        assert values.shape == (12, 17), name
        assert float(values.max()) <= next(t.high for t in PAIRS.tensors if t.name == name)
    ratio = drawn.tensors["policy_chosen_logps"] - drawn.tensors["reference_chosen_logps"]
    assert float(ratio[:6].abs().max()) <= 2.5 < 20 < float(ratio[6:].abs().max()) <= 50
    assert set(drawn.scalars["beta"]) <= set(conditions.scales)
    assert len(set(drawn.scalars["progress"])) == 12
    assert min(drawn.scalars["progress"]) < 0.02
    assert max(drawn.scalars["progress"]) > 0.98


def test_an_optional_input_more_changes_no_other_values() -> None:
    conditions = Conditions()
    fewer = replace(PAIRS, tensors=PAIRS.tensors[:-1], scalars=PAIRS.scalars[:-1])
    drawn, less = calls(PAIRS, conditions), calls(fewer, conditions)
    assert all(torch.equal(t, drawn.tensors[name]) for name, t in less.tensors.items())
    assert all(values == drawn.scalars[name] for name, values in less.scalars.items())


def test_tables_of_another_secret_are_others() -> None:
    assert len({tables_key(PAIRS, {}, Conditions(seed, batch)) for seed in (1, 2) for batch in (8, 32)}) == 4
