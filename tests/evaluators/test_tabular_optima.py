"""Known objectives on a tabular policy (6 responses) and population pairs, against their closed-form optima."""

import math

import numpy as np
import pytest
import torch

from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS
from tests.support.inline_oracle import InlineOracle

RESPONSES = 6
RANDOM = np.random.default_rng(11)
REFERENCE = torch.log_softmax(torch.from_numpy(RANDOM.standard_normal(RESPONSES)), 0)
REWARDS = torch.from_numpy(RANDOM.standard_normal(RESPONSES))
FIRST, SECOND = (torch.tensor(x) for x in zip(*[(i, j) for i in range(6) for j in range(6) if i != j], strict=True))


def train_tabular(name: str, beta: float, weights: torch.Tensor) -> torch.Tensor:
    """Log-probs (6,) of the policy that minimises the weighted population loss; pair n prefers FIRST[n].

    The 30 ordered pairs are 30 runs of one example each, so the oracle's means are the pairs' losses.
    """
    oracle = InlineOracle(known_objective(PAIRS.name, name).candidate, PAIRS)
    logits = REFERENCE.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        logps = torch.log_softmax(logits, 0)
        inputs = {
            "policy_chosen_logps": logps[FIRST, None],
            "policy_rejected_logps": logps[SECOND, None],
            "reference_chosen_logps": REFERENCE[FIRST, None],
            "reference_rejected_logps": REFERENCE[SECOND, None],
        }
        loss = (weights * oracle(inputs, {"beta": [beta] * len(FIRST)})).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return torch.log_softmax(logits.detach(), 0)


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_dpo_optimum_is_the_tilted_reference(beta):
    # any pair distribution will do, as Bradley-Terry preferences can be fitted exactly
    drawn = torch.from_numpy(np.random.default_rng(2).uniform(0.5, 2, (6, 6)))
    weights = (drawn + drawn.T)[FIRST, SECOND] * torch.sigmoid(REWARDS[FIRST] - REWARDS[SECOND])
    weights /= weights.sum()
    optimum = torch.log_softmax(REFERENCE + REWARDS / beta, 0)
    torch.testing.assert_close(train_tabular("dpo", beta, weights), optimum, atol=1e-5, rtol=0)


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_ipo_optimum_tilts_by_the_mean_preference(beta):
    # preferences that no reward explains, pairs uniform: log pi/ref of i is the mean over all j of (p(i > j) - 1/2) / beta
    noise = torch.from_numpy(np.random.default_rng(3).uniform(0.1, 0.9, (6, 6)))
    preferences = torch.triu(noise, 1) + torch.tril(1 - noise.T, -1) + 0.5 * torch.eye(6)
    weights = preferences[FIRST, SECOND] / (RESPONSES * (RESPONSES - 1) / 2)
    optimum = torch.log_softmax(REFERENCE + (preferences.mean(1) - 0.5) / beta, 0)
    torch.testing.assert_close(train_tabular("ipo", beta, weights), optimum, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "margin", "beta", "expected"),
    [
        ("dpo", 0.7, 0.5, math.log(1 + math.exp(-0.35))),
        ("hinge", 0.7, 0.5, 0.65),
        ("hinge", 3.0, 0.5, 0.0),
        ("ipo", 0.7, 0.5, 0.09),
        ("kto_pair", 0.0, 0.5, 0.5),
    ],
)
def test_losses_at_single_margins(name, margin, beta, expected):
    oracle = InlineOracle(known_objective(PAIRS.name, name).candidate, PAIRS)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    inputs = {t.name: zero for t in PAIRS.tensors} | {"policy_chosen_logps": zero + margin}
    assert float(oracle(inputs, {"beta": [beta]})) == pytest.approx(expected, abs=1e-12)
