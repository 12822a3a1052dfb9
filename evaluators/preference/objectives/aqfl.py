"""Adaptive quantile feedback loss (AQFL), discovered beside LRML: logistic and hinge, blended by distance to a quantile.

    q0 = std(d) * mean sigmoid(-d),   q = q0 + 0.05 * (sigmoid(mean d) - q0),   w = sigmoid(0.1 * |d - q|)
    L = w * -log sigmoid(z) + (1 - w) * max(0, 1 - z)

with z = beta * d and d = (lw - rw) - (ll - rl); mean and standard deviation are over the batch, the latter with N - 1. As
in the code that plots it; the code that trains it has z / 0.05 in the place of d.

Inputs: log-probs of pairs.
Defaults: update rate 0.05, distance scale 0.1, beta 0.05.
Paper: Lu et al. 2024, "Discovering Preference Optimization Algorithms with and for Large Language Models",
arXiv:2406.08414, appendix; the authors' code.
"""

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    z = beta * margin
    count = len(margin)
    deviation = margin.std(unbiased=False) * (count / max(count - 1, 1)) ** 0.5  # 0, not NaN, for a single pair
    quantile = deviation * torch.sigmoid(-margin).mean()
    quantile = quantile + 0.05 * (torch.sigmoid(margin.mean()) - quantile)
    distance = 0.1 * (margin - quantile).abs()
    return torch.sigmoid(distance) * -F.logsigmoid(z) + torch.sigmoid(-distance) * torch.relu(1 - z)
