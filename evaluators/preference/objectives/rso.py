"""RSO's hinge: hinge loss on the margin of log-ratios, for pairs that come from statistical rejection sampling.

    L = max(0, 1 - gamma * d),   d = (lw - rw) - (ll - rl)

The loss is the hinge of SLiC with a reference (`hinge`); what RSO adds is the data, pairs drawn from an estimate of the
optimal policy. gamma is this interface's beta. RSO's other loss, "sigmoid-norm", is DPO's.

Inputs: log-probs of pairs.
Defaults: gamma 0.05.
Paper: Liu et al. 2023, "Statistical Rejection Sampling Improves Preference Optimization", arXiv:2309.06657, equation 10.
"""

import torch


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    return torch.clamp(1 - beta * margin, min=0)
