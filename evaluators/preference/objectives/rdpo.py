"""Robust DPO (rDPO): an unbiased estimate of DPO's loss when labels are flipped with a known probability.

    L = [(1 - e) * (-log sigmoid(z)) - e * (-log sigmoid(-z))] / (1 - 2e),   z = beta * d,   d = (lw - rw) - (ll - rl)

Its mean over flips of rate e is DPO's loss on the true labels. It falls with the margin everywhere, but not to a bound:
the slope tends to -e / (1 - 2e). TRL calls it `robust`.

Inputs: log-probs of pairs.
Defaults: e 0.1, beta 0.1.
Paper: Chowdhury et al. 2024, "Provably Robust DPO: Aligning Language Models with Noisy Feedback", arXiv:2403.00409.
"""

import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    z = beta * margin
    return (0.1 * F.logsigmoid(-z) - 0.9 * F.logsigmoid(z)) / 0.8
