"""Exponential loss of the margin, the convex surrogate of AdaBoost in the GPO family.

    L = exp(-z),   z = beta * d,   d = (lw - rw) - (ll - rl)

Inputs: log-probs of pairs.
Defaults: beta 0.1.
Paper: Tang et al. 2024, "Generalized Preference Optimization: A Unified Approach to Offline Alignment",
arXiv:2402.05749, table 1.
"""

import torch


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    return torch.exp(-beta * margin)
