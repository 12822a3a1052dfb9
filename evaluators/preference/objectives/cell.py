"""Combined exponential and logistic loss (CELL), discovered beside LRML: the mean of both.

    L = exp(-z) / 2 - log sigmoid(z) / 2,   z = beta * d,   d = (lw - rw) - (ll - rl)

Inputs: log-probs of pairs.
Defaults: beta 0.05.
Paper: Lu et al. 2024, "Discovering Preference Optimization Algorithms with and for Large Language Models",
arXiv:2406.08414, appendix; the authors' code.
"""

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    z = beta * margin
    return 0.5 * torch.exp(-z) - 0.5 * F.logsigmoid(z)
