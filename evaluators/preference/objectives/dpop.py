"""DPO-Positive: DPO with a penalty where the chosen response has become less likely than under the reference.

    L = -log sigmoid(beta * (d - lambda * max(0, rw - lw))),   d = (lw - rw) - (ll - rl)

Inputs: log-probs of pairs.
Defaults: lambda 50, beta 0.3.
Paper: Pal et al. 2024, "Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive", arXiv:2402.13228.
"""

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    fallen = torch.relu(reference_chosen_logps - policy_chosen_logps)
    return -F.logsigmoid(beta * (margin - 50.0 * fallen))
