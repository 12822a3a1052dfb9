"""Contracts unlike pairs: what a probe says of them comes from what they state, not from the order of their inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evaluators.preference.contract import PAIRS, UNPAIRED
from sandbox.candidate import Candidate
from sandbox.check import check_candidate, refusal
from sandbox.contract import Conditions, Contract, TensorInput
from sandbox.curve import at_margins, has_margin
from sandbox.draws import directions
from sandbox.reports import Properties
from sandbox.server import OracleServer
from tests.support.losses import KNOWN

# the error of a value against a target: which way the value should go depends on the example, and nothing says it
VALUES = Contract(
    "value.td",
    "loss",
    "Temporal differences.",
    (
        TensorInput("value", "", -3.0, 3.0, carries_gradient=True),
        TensorInput("next_value", "", -3.0, 3.0),
        TensorInput("reward", "", -1.0, 1.0),
    ),
)
SQUARED = "def loss(value, next_value, reward):\n    return (reward + 0.9 * next_value - value) ** 2\n"
HUBER = (
    "import torch.nn.functional as F\n\ndef loss(value, next_value, reward):\n"
    "    return F.huber_loss(value, reward + 0.9 * next_value, reduction='none')\n"
)


@pytest.fixture(scope="module")
def server():
    with OracleServer() as server:
        yield server


def properties(server: OracleServer, contract: Contract, source: str) -> Properties:
    gate, report = check_candidate(server, Candidate(contract.name, source), contract, conditions=Conditions(seed=3))
    assert refusal(gate, report) is None
    assert report is not None
    assert report.properties is not None
    return report.properties


@pytest.mark.parametrize("source", [SQUARED, HUBER], ids=["squared", "huber"])
def test_a_contract_that_wants_nothing_has_no_margin_and_no_slope(server: OracleServer, source: str) -> None:
    assert not has_margin(VALUES)
    assert directions(VALUES, {t.name: torch.zeros(4) for t in VALUES.tensors}) == {}
    found = properties(server, VALUES, source)
    assert (found.convex_in_margin, found.limit_at_plus_infinity, found.limit_at_minus_infinity) == (None, None, None)
    assert not found.monotone_decreasing
    assert found.inputs_with_gradient == ("value",)


def test_a_reference_alone_makes_no_margin(server: OracleServer) -> None:
    """A policy that starts as a reference, of which no one says where it should go."""
    first, *rest = VALUES.tensors
    compared = replace(VALUES, tensors=(replace(first, reference="next_value"), *rest))
    assert not has_margin(compared)
    found = properties(server, compared, SQUARED)
    assert found.convex_in_margin is None
    assert not found.monotone_decreasing
    wanted = replace(compared, tensors=(replace(first, reference="next_value", wanted="down"), *rest))
    assert has_margin(wanted)


def test_the_order_of_a_contracts_inputs_decides_nothing(server: OracleServer) -> None:
    chosen, rejected, *rest = PAIRS.tensors
    turned = replace(PAIRS, tensors=(rejected, chosen, *rest))
    source = KNOWN["dpo"].source
    assert properties(server, turned, source) == replace(
        properties(server, PAIRS, source),
        inputs_with_gradient=("policy_rejected_logps", "policy_chosen_logps"),
    )
    margins = torch.tensor([[-2.0, 0.0, 3.0]])
    ours, theirs = at_margins(PAIRS, margins), at_margins(turned, margins)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_margins_are_the_sum_of_what_each_input_is_wanted_to_do() -> None:
    margins = torch.tensor([[-2.0, 0.0, 3.0, 4.0]])
    pairs = at_margins(PAIRS, margins)
    chosen, rejected = (pairs[f"policy_{s}_logps"] - pairs[f"reference_{s}_logps"] for s in ("chosen", "rejected"))
    torch.testing.assert_close(chosen - rejected, margins)
    torch.testing.assert_close(chosen, -rejected)
    assert (pairs["chosen_score"] > pairs["rejected_score"]).all()
    single = at_margins(UNPAIRED, margins)
    assert single["desirable"].tolist() == [[1.0, 0.0, 1.0, 0.0]]
    torch.testing.assert_close(
        single["policy_logps"] - single["reference_logps"], margins * torch.tensor([1.0, -1.0, 1.0, -1.0])
    )
