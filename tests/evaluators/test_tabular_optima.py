"""Known objectives on a tabular policy (6 responses) and population pairs, against their closed-form optima."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from evaluators.objectives import known_objective
from evaluators.preference.contract import PAIRS, UNPAIRED
from tests.support.inline_oracle import InlineOracle

RESPONSES = 6
RANDOM = np.random.default_rng(11)
REFERENCE = torch.log_softmax(torch.from_numpy(RANDOM.standard_normal(RESPONSES)), 0)
REWARDS = torch.from_numpy(RANDOM.standard_normal(RESPONSES))
FIRST, SECOND = (torch.tensor(x) for x in zip(*[(i, j) for i in range(6) for j in range(6) if i != j], strict=True))


def minimise(loss: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor) -> torch.Tensor:
    """Log-probs of the policy, a softmax of free logits, at which a loss of log-probs is smallest."""
    logits = start.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        value = loss(torch.log_softmax(logits, 0))
        value.backward()
        return value

    optimiser.step(closure)
    return torch.log_softmax(logits.detach(), 0)


def train_tabular(name: str, beta: float, weights: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
    """Log-probs (6,) of the policy that minimises the weighted population loss; pair n prefers FIRST[n].

    The 30 ordered pairs are 30 runs of one example each, so the oracle's means are the pairs' losses.
    """
    oracle = InlineOracle(known_objective(PAIRS.name, name).candidate, PAIRS)
    extra = {} if lengths is None else {"chosen_length": lengths[FIRST, None], "rejected_length": lengths[SECOND, None]}

    def loss(logps):
        inputs = {
            "policy_chosen_logps": logps[FIRST, None],
            "policy_rejected_logps": logps[SECOND, None],
            "reference_chosen_logps": REFERENCE[FIRST, None],
            "reference_rejected_logps": REFERENCE[SECOND, None],
            **extra,
        }
        return (weights * oracle(inputs, {"beta": [beta] * len(FIRST)})).sum()

    return minimise(loss, REFERENCE)


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


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_r_dpo_optimum_tilts_by_the_reward_less_the_length(beta):
    lengths = torch.tensor([1, 30, 7, 50, 3, 12])
    weights = torch.sigmoid(REWARDS[FIRST] - REWARDS[SECOND])
    optimum = torch.log_softmax(REFERENCE + (REWARDS - 0.05 * lengths) / beta, 0)
    found = train_tabular("r_dpo_length", beta, weights / weights.sum(), lengths)
    torch.testing.assert_close(found, optimum, atol=1e-5, rtol=0)


def pmpo_loss(accepted, rejected, beta):
    """PMPO's population loss of a tabular policy: one example per combination of kind, response and reference sample.

    Every combination is weighted by its probability: runs of two examples (one of each kind), averaged exactly.
    """
    oracle = InlineOracle(known_objective(UNPAIRED.name, "pmpo").candidate, UNPAIRED)
    grid = torch.cartesian_prod(*[torch.arange(RESPONSES)] * 4)  # accepted, rejected, a sample for each: (1296, 4)
    weights = accepted[grid[:, 0]] * rejected[grid[:, 1]] * (REFERENCE[grid[:, 2]] + REFERENCE[grid[:, 3]]).exp()
    labels = torch.tensor([[1.0, 0.0]]).expand(len(grid), 2)

    def loss(logps):
        inputs = {
            "policy_logps": logps[grid[:, :2]],
            "reference_logps": REFERENCE[grid[:, :2]],
            "desirable": labels.bool(),
            "sample_policy_logps": logps[grid[:, 2:]],
            "sample_reference_logps": REFERENCE[grid[:, 2:]],
        }
        return (weights * oracle(inputs, {"beta": [beta] * len(grid)})).sum()

    return loss


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_pmpo_optimum_adds_accepted_and_subtracts_rejected(beta):
    accepted, rejected = (torch.softmax(REFERENCE + sign * REWARDS / 6, 0) for sign in (1, -1))
    target = 0.5 * accepted - 0.5 * rejected + beta * REFERENCE.exp()
    assert bool((target > 0).all())
    found = minimise(pmpo_loss(accepted, rejected, beta), REFERENCE)
    torch.testing.assert_close(found.exp(), target / target.sum(), atol=1e-5, rtol=0)


def test_pmpo_has_no_lower_bound_where_rejected_responses_outweigh_the_reference():
    accepted, rejected = torch.softmax(REFERENCE + REWARDS, 0), torch.softmax(REFERENCE - 3 * REWARDS, 0)
    loss = pmpo_loss(accepted, rejected, 0.05)
    worst = int((0.5 * accepted - 0.5 * rejected + 0.05 * REFERENCE.exp()).argmin())
    values = []
    for depth in (1.0, 10.0, 100.0, 1000.0):  # ever less probability for that response
        logits = REFERENCE.clone()
        logits[worst] -= depth
        values.append(float(loss(torch.log_softmax(logits, 0))))
    assert values == sorted(values, reverse=True)
    assert values[-1] < -50


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_qrpo_optimum_tilts_by_the_quantile_and_its_partition_function_is_exact(beta):
    # as many equally likely responses as make the quantiles uniform to 1e-6; the optimum is then normalised by itself
    count = 2000
    reference = torch.full((count,), -math.log(count), dtype=torch.float64)
    quantiles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    oracle = InlineOracle(known_objective(UNPAIRED.name, "qrpo").candidate, UNPAIRED)

    def loss(logps):
        inputs = {"policy_logps": logps[None], "reference_logps": reference[None], "score_quantile": quantiles[None]}
        return oracle(inputs | {"desirable": quantiles[None] > 2}, {"beta": [beta]}).sum()

    found = minimise(loss, reference)
    torch.testing.assert_close(found, torch.log_softmax(quantiles / beta, 0), atol=2e-5 / beta, rtol=0)
    partition = beta * math.expm1(1 / beta)
    torch.testing.assert_close(found, reference + quantiles / beta - math.log(partition), atol=1e-4, rtol=0)
    assert float(loss(found)) < 1e-8


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
