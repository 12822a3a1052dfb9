"""Adaptive quantile feedback loss (AQFL), discovered beside LRML: logistic and hinge, blended by distance to a quantile.

    q0 = std(u) * mean sigmoid(-u),   q = q0 + 0.05 * (sigmoid(mean u) - q0),   w = sigmoid(0.1 * |u - q|),   u = z / 0.05
    L  = w * -log sigmoid(z) + (1 - w) * max(0, 1 - z)

with z = beta * d and d = (lw - rw) - (ll - rl); mean and standard deviation are over the batch, the latter with N - 1. As
it was trained and reported; the authors' code that plots it has d in the place of u, which is the same at beta 0.05 alone.

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
    u = z / 0.05
    count = len(u)
    deviation = u.std(unbiased=False) * (count / max(count - 1, 1)) ** 0.5  # 0, not NaN, for a single pair
    quantile = deviation * torch.sigmoid(-u).mean()
    quantile = quantile + 0.05 * (torch.sigmoid(u.mean()) - quantile)
    distance = 0.1 * (u - quantile).abs()
    return torch.sigmoid(distance) * -F.logsigmoid(z) + torch.sigmoid(-distance) * torch.relu(1 - z)
