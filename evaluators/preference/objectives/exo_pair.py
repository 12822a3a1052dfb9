"""Efficient exact optimisation on pairs: reverse KL from the policy's preference to the smoothed label.

    q = sigmoid(z),   L = q * (log q - log(1 - e)) + (1 - q) * (log(1 - q) - log e),   z = beta * d

with d = (lw - rw) - (ll - rl). Not monotone in the margin: its minimum, 0, is at q = 1 - e. With e = 0 it is not defined;
TRL 0.28 then takes 0.001 without saying so, later versions refuse it.

Inputs: log-probs of pairs.
Defaults: e 0.001, beta 0.1.
Paper: Ji et al. 2024, "Towards Efficient Exact Optimization of Language Model Alignment", arXiv:2402.00856, equation 16.
"""

import math

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    z = beta * margin
    chosen = torch.sigmoid(z) * (F.logsigmoid(z) - math.log(0.999))
    rejected = torch.sigmoid(-z) * (F.logsigmoid(-z) - math.log(0.001))
    return chosen + rejected
