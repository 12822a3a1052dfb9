"""f-DPO with the forward KL: rewards are f'(u) = 1 - 1/u of the probability ratio u.

    L = -log sigmoid(beta * (exp(-hl) - exp(-hw))),   hw = lw - rw,   hl = ll - rl

The reverse KL gives f'(u) = log u + 1 and DPO.

Inputs: log-probs of pairs.
Defaults: beta 0.1.
Paper: Wang et al. 2023, "Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence
Constraints", arXiv:2309.16240.
"""

import torch
import torch.nn.functional as F


def difference(a, b):
    """exp(a) - exp(b), its size capped at exp(80), where single precision ends; the sign stays right."""
    above = torch.exp(torch.clamp(a, max=80.0)) * torch.expm1(-torch.clamp(a - b, min=0.0))
    below = torch.exp(torch.clamp(b, max=80.0)) * torch.expm1(-torch.clamp(b - a, min=0.0))
    return torch.where(a > b, -above, below)


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    chosen = policy_chosen_logps - reference_chosen_logps
    rejected = policy_rejected_logps - reference_rejected_logps
    return -F.logsigmoid(beta * difference(-rejected, -chosen))
