"""Aligned supervised fine-tuning: the absolute likelihood of each response, no comparison and no reference.

    p = exp(l / |y|),   L = -log pw + lambda * (-log sigmoid(log(pw / (1 - pw))) - log sigmoid(-log(pl / (1 - pl))))
      = -(1 + lambda) * log pw - lambda * log(1 - pl)

The second form is exact, since sigmoid(log(p / (1 - p))) = p. A probability of 1 is kept 1e-6 nats away: there the loss
has no finite value. beta is not used. UNSURE: lambda; 1 is taken.

Inputs: log-probs of pairs under the policy; chosen_length, rejected_length.
Defaults: lambda 1.
Paper: Wang et al. 2024, "ASFT: Aligned Supervised Fine-Tuning through Absolute Likelihood", arXiv:2409.10571.
"""

import torch


def log1mexp(x):
    """log(1 - exp(x)) for x < 0, without cancellation at either end."""
    near = torch.log(-torch.expm1(torch.clamp(x, min=-0.6931471805599453)))
    far = torch.log1p(-torch.exp(torch.clamp(x, max=-0.6931471805599453)))
    return torch.where(x > -0.6931471805599453, near, far)


def loss(
    policy_chosen_logps,
    policy_rejected_logps,
    reference_chosen_logps,
    reference_rejected_logps,
    chosen_length,
    rejected_length,
    beta,
):
    chosen = policy_chosen_logps / chosen_length
    rejected = torch.clamp(policy_rejected_logps / rejected_length, max=-1e-6)
    return -2.0 * chosen - log1mexp(rejected)
