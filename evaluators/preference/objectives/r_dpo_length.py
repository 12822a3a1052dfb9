"""R-DPO: DPO with a regulariser of length, so that the policy does not learn that longer is better.

    L = -log sigmoid(beta * d + alpha * (|yw| - |yl|)),   d = (lw - rw) - (ll - rl)

It is DPO for the reward r - alpha * |y|: on a tabular policy the optimum is ref * exp((r - alpha * |y|) / beta). What
length explains of a preference, the log-ratios need not.

Inputs: log-probs of pairs; chosen_length, rejected_length.
Defaults: alpha 0.05, beta 0.1.
Paper: Park et al. 2024, "Disentangling Length from Quality in Direct Preference Optimization", arXiv:2403.19159.
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
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    longer_by = (chosen_length - rejected_length).to(margin.dtype)
    return -F.logsigmoid(beta * margin + 0.05 * longer_by)
