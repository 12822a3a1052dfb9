"""Noise-contrastive alignment on pairs: each reward is also held down by itself, which keeps the chosen likelihood up.

    L = -log sigmoid(a) - 1/2 * log sigmoid(-a) - 1/2 * log sigmoid(-b),   a = beta * (lw - rw),   b = beta * (ll - rl)

Inputs: log-probs of pairs.
Defaults: beta 0.1.
Paper: Chen et al. 2024, "Noise Contrastive Alignment of Language Models with Explicit Rewards", arXiv:2402.05369.
"""

import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    chosen = beta * (policy_chosen_logps - reference_chosen_logps)
    rejected = beta * (policy_rejected_logps - reference_rejected_logps)
    return -F.logsigmoid(chosen) - 0.5 * F.logsigmoid(-chosen) - 0.5 * F.logsigmoid(-rejected)
