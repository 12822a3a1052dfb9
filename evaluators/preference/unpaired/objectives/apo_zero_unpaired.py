"""Anchored preference optimisation, zero, on single responses: more of the desirable ones, less of the others.

    desirable: L = 1 - sigmoid(beta * h),   undesirable: L = sigmoid(beta * h),   h = log pi / ref

KTO with its reference point at 0. TRL's KTO trainer has it under this name.

Inputs: log-probs and labels of single responses.
Defaults: beta 0.1.
Paper: D'Oosterlinck et al. 2024, "Anchored Preference Optimization and Contrastive Revisions", arXiv:2408.06266, equation 7.
"""

import torch


def loss(policy_logps, reference_logps, desirable, beta):
    gain = policy_logps - reference_logps
    return torch.sigmoid(beta * torch.where(desirable, -gain, gain))
