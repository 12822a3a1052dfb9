"""f-DPO with the forward KL: rewards are f'(u) = 1 - 1/u of the probability ratio u.

    L = -log sigmoid(beta * (exp(-hl) - exp(-hw))),   hw = lw - rw,   hl = ll - rl

The reverse KL gives f'(u) = log u + 1 and DPO. The ratio 1/u is capped at exp(80), beyond which it leaves single precision.

Inputs: log-probs of pairs.
Defaults: beta 0.1.
Paper: Wang et al. 2023, "Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence
Constraints", arXiv:2309.16240.
"""

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    chosen = torch.clamp(reference_chosen_logps - policy_chosen_logps, max=80.0)
    rejected = torch.clamp(reference_rejected_logps - policy_rejected_logps, max=80.0)
    return -F.logsigmoid(beta * (torch.expm1(rejected) - torch.expm1(chosen)))
