"""f-DPO with an alpha divergence: rewards are f'(u) = (1 - u^-a) / a of the probability ratio u.

    L = -log sigmoid(beta * (exp(-a * hl) - exp(-a * hw)) / a),   hw = lw - rw,   hl = ll - rl

a -> 0 is DPO (reverse KL) and a = 1 the forward KL. TRL from 0.29 on counts alpha = 1 - a. The exponent is capped at 80.

Inputs: log-probs of pairs.
Defaults: a 0.5, beta 0.1.
Paper: Wang et al. 2023, "Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence
Constraints", arXiv:2309.16240.
"""

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    chosen = torch.expm1(torch.clamp(0.5 * (reference_chosen_logps - policy_chosen_logps), max=80.0))
    rejected = torch.expm1(torch.clamp(0.5 * (reference_rejected_logps - policy_rejected_logps), max=80.0))
    return -F.logsigmoid(beta * (rejected - chosen) / 0.5)
