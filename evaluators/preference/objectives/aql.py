"""Adaptive quantile loss (AQL), discovered beside LRML: logistic and hinge, blended by where a pair lies in the batch.

    u = z / 0.05,   q = 0.5 + 0.01 * (sigmoid(mean u) - 0.5),   w = sigmoid(q - u)
    L = w * -log sigmoid(z) + (1 - w) * max(0, 1 - z)

with z = beta * d and d = (lw - rw) - (ll - rl); the mean is over the batch. As it was trained and reported; the authors'
code that plots it has w = sigmoid(beta * (q - d)).

Inputs: log-probs of pairs.
Defaults: percentile 0.5, update weight 0.01, beta 0.05.
Paper: Lu et al. 2024, "Discovering Preference Optimization Algorithms with and for Large Language Models",
arXiv:2406.08414, appendix; the authors' code.
"""

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    z = beta * margin
    u = z / 0.05
    distance = u - (0.5 + 0.01 * (torch.sigmoid(u.mean()) - 0.5))
    return torch.sigmoid(-distance) * -F.logsigmoid(z) + torch.sigmoid(distance) * torch.relu(1 - z)
