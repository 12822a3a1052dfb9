"""Simple preference optimisation: length-averaged log-probs, no reference, a target margin.

    L = -log sigmoid(beta * (lw / |yw| - ll / |yl| - ratio)),   ratio = gamma / beta

The target margin is kept as its ratio to beta, as in the authors' code, so that beta only sets the sharpness.

Inputs: log-probs of pairs under the policy; chosen_length, rejected_length.
Defaults: ratio 0.25; beta 2 to 2.5 with average log-probs of whole texts.
Paper: Meng et al. 2024, "SimPO: Simple Preference Optimization with a Reference-Free Reward", arXiv:2405.14734, equation 6.
"""

import torch.nn.functional as F


def loss(
    policy_chosen_logps,
    policy_rejected_logps,
    reference_chosen_logps,
    reference_rejected_logps,
    chosen_length,
    rejected_length,
    beta,
):
    margin = policy_chosen_logps / chosen_length - policy_rejected_logps / rejected_length
    return -F.logsigmoid(beta * (margin - 0.25))
