"""DPO with forward correction: the likelihood of a label that may have been flipped with a known probability.

    L = -log[(1 - e) * sigmoid(z) + e * sigmoid(-z)],   z = beta * d,   d = (lw - rw) - (ll - rl)

Bounded by -log e: beyond that a pair is explained as a flipped label and its gradient vanishes. cDPO smooths the label and
rDPO corrects the loss (backward correction); this corrects the model's probability.

Inputs: log-probs of pairs.
Defaults: e 0.1, beta 0.1.
Paper: Patrini et al. 2017, "Making Deep Neural Networks Robust to Label Noise: a Loss Correction Approach",
arXiv:1609.03683, theorem 2, for the two classes of a pair.
"""

import math

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    z = beta * margin
    return -torch.logaddexp(math.log(0.9) + F.logsigmoid(z), math.log(0.1) + F.logsigmoid(-z))
