"""Anchored preference optimisation, down: lowers both responses, the rejected one more.

    L = sigmoid(beta * hw) + 1 - sigmoid(beta * (hw - hl)),   hw = lw - rw,   hl = ll - rl

For pairs whose chosen response is worse than what the model writes.

Inputs: log-probs of pairs.
Defaults: beta 0.1.
Paper: D'Oosterlinck et al. 2024, "Anchored Preference Optimization and Contrastive Revisions", arXiv:2408.06266, equation 8.
"""

import torch


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    chosen = policy_chosen_logps - reference_chosen_logps
    rejected = policy_rejected_logps - reference_rejected_logps
    return torch.sigmoid(beta * chosen) + torch.sigmoid(-beta * (chosen - rejected))
