"""Value-incentivised preference optimisation, offline: DPO with a pessimistic value term on the calibration responses.

    L = -log sigmoid(beta * d) - alpha * beta * hw,   d = hw - hl,   hw = lw - rw,   hl = ll - rl

The calibration distribution is that of the chosen responses, which makes the term one of imitation. (Online, with
responses of the reference and the other sign, it is optimism, as in XPO.) UNSURE: alpha; 0.01 is taken. alpha = 0 is DPO.

Inputs: log-probs of pairs.
Defaults: alpha 0.01, beta 0.1.
Paper: Cen et al. 2024, "Value-Incentivized Preference Optimization: A Unified Approach to Online and Offline RLHF",
arXiv:2405.19320, algorithm 2.
"""

import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    chosen = policy_chosen_logps - reference_chosen_logps
    rejected = policy_rejected_logps - reference_rejected_logps
    return -F.logsigmoid(beta * (chosen - rejected)) - 0.01 * beta * chosen
