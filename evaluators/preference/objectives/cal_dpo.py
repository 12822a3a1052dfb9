"""Cal-DPO: a logistic loss on the log-ratios, calibrated so that each of them comes near a reward of plus or minus a half.

    L = -log sigmoid(hw - hl) + [(hw - 1 / (2 beta))^2 + (hl + 1 / (2 beta))^2] / 2,   hw = lw - rw,   hl = ll - rl

beta sets the targets alone; the logistic part has none. The weight 1 / 2 is that of the authors' code; the paper has 1.

Inputs: log-probs of pairs.
Defaults: calibration weight 0.5, beta 0.1.
Paper: Xiao et al. 2024, "Cal-DPO: Calibrated Direct Preference Optimization for Language Model Alignment", arXiv:2412.14516;
the authors' code.
"""

import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    chosen = policy_chosen_logps - reference_chosen_logps
    rejected = policy_rejected_logps - reference_rejected_logps
    target = 1 / (2 * beta)
    return -F.logsigmoid(chosen - rejected) + ((chosen - target) ** 2 + (rejected + target) ** 2) / 2
