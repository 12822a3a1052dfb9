"""Log-ratio modulated loss, the objective that DiscoPOP discovered and is usually called by its name.

    z = beta * d,   m = sigmoid(z / tau),   L = (1 - m) * (-log sigmoid(z)) + m * exp(-z),   tau = 0.05

with d = (lw - rw) - (ll - rl), as in DPO. Not convex: it has a local minimum at z = -0.1186 and a local maximum at
z = 0.0720. The products are written as exponentials of sums of logarithms: where z is very negative, m is 0 and exp(-z)
infinite, but their product is 0. TRL calls it `discopop`.

Inputs: log-probs of pairs.
Defaults: tau 0.05, beta 0.05.
Paper: Lu et al. 2024, "Discovering Preference Optimization Algorithms with and for Large Language Models",
arXiv:2406.08414, equation 5.
"""

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    z = beta * margin
    logistic = torch.sigmoid(-z / 0.05) * -F.logsigmoid(z)
    exponential = torch.exp(F.logsigmoid(z / 0.05) - z)
    return logistic + exponential
