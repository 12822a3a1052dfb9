"""DPO with an offset: the margin must exceed what the difference of scores asks for.

    L = -log sigmoid(beta * d - alpha * log(score(yw) - score(yl))),   d = (lw - rw) - (ll - rl)

The logarithm needs a positive difference, as in the authors' data; smaller ones, and those of the wrong sign, count as
0.001. A difference of 1 is DPO.

Inputs: log-probs of pairs; chosen_score, rejected_score.
Defaults: alpha 1, beta 0.1.
Paper: Amini et al. 2024, "Direct Preference Optimization with an Offset", arXiv:2402.10571.
"""

import torch
import torch.nn.functional as F


def loss(
    policy_chosen_logps,
    policy_rejected_logps,
    reference_chosen_logps,
    reference_rejected_logps,
    chosen_score,
    rejected_score,
    beta,
):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    offset = torch.log(torch.clamp(chosen_score - rejected_score, min=1e-3))
    return -F.logsigmoid(beta * margin - offset)
