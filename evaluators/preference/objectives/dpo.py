"""Direct preference optimisation: logistic loss on the implicit reward margin.

    L = -log sigmoid(beta * d),   d = (lw - rw) - (ll - rl)

with lw, ll the policy's and rw, rl the reference's log-probs of the chosen and rejected response. On a tabular policy
and Bradley-Terry labels the population optimum is pi ~ ref * exp(r / beta).

Paper: Rafailov et al. 2023, "Direct Preference Optimization", arXiv:2305.18290, equation 7.
"""

import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    return -F.logsigmoid(beta * margin)
