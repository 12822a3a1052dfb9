"""f-DPO with the Jensen-Shannon divergence: rewards are f'(u) = log(2u / (1 + u)) of the probability ratio u.

    L = -log sigmoid(beta * (log sigmoid(hw) - log sigmoid(hl))),   hw = lw - rw,   hl = ll - rl

since log(2u / (1 + u)) = log 2 + log sigmoid(log u). A response cannot gain more than log 2, so rewards saturate upwards.

Inputs: log-probs of pairs.
Defaults: beta 0.1.
Paper: Wang et al. 2023, "Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence
Constraints", arXiv:2309.16240.
"""

import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    chosen = F.logsigmoid(policy_chosen_logps - reference_chosen_logps)
    rejected = F.logsigmoid(policy_rejected_logps - reference_rejected_logps)
    return -F.logsigmoid(beta * (chosen - rejected))
