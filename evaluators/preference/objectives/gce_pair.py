"""Generalised cross-entropy on pairs: between the logistic loss (q -> 0) and the sigmoid loss (q = 1).

    L = (1 - sigmoid(z)^q) / q,   z = beta * d,   d = (lw - rw) - (ll - rl)

Bounded by 1 / q: a pair that the policy ranks far wrong, as a flipped label looks late in training, pulls less and less. Its
gradient is DPO's times sigmoid(z)^q.

Inputs: log-probs of pairs.
Defaults: q 0.7, beta 0.1.
Paper: Zhang and Sabuncu 2018, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels",
arXiv:1805.07836, equation 6, for the two classes of a pair.
"""

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    return -torch.expm1(0.7 * F.logsigmoid(beta * margin)) / 0.7
