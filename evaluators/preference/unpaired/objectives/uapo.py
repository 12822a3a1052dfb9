"""Utility-anchored preference optimisation: desirable responses lie above an anchor, others below it.

    desirable: L = -log sigmoid(R - A),   undesirable: L = -log sigmoid(A - R),   R = beta * log pi / ref

UNSURE: the anchor. The paper's is a function that also carries the uncertainty of the annotation; here it is the batch's
mean reward plus a tenth of its standard deviation, both constants to the gradient.

Inputs: log-probs and labels of single responses.
Defaults: weight of the uncertainty 0.1, beta 0.1.
Paper: Wang et al. 2025, "Adaptive Preference Optimization with Uncertainty-aware Utility Anchor", arXiv:2509.10515.
"""

import torch
import torch.nn.functional as F


def loss(policy_logps, reference_logps, desirable, beta):
    reward = beta * (policy_logps - reference_logps)
    anchor = (reward.mean() + 0.1 * reward.std(unbiased=False)).detach()
    return -F.logsigmoid(torch.where(desirable, reward - anchor, anchor - reward))
