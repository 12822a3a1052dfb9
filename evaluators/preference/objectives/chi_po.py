"""Chi-PO: DPO whose link also sees the probability ratio itself, which regularises by the chi-squared divergence.

    L = -log sigmoid(beta * (phi(hw) - phi(hl))),   phi(h) = exp(h) + h,   hw = lw - rw,   hl = ll - rl

A response that has become much more likely than under the reference counts exponentially more, so that little is gained by
leaving what the reference covers. exp(h) is taken at h of at most 20, for single precision. The theory clips the difference
at twice the largest reward, which is not done here. UNSURE whether experiments of the paper clip at 20 as well.

Inputs: log-probs of pairs.
Defaults: beta 0.1.
Paper: Huang et al. 2024, "Correcting the Mythos of KL-Regularization: Direct Alignment without Overoptimization via
Chi-Squared Preference Optimization", arXiv:2407.13399, equation 9.
"""

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    chosen = policy_chosen_logps - reference_chosen_logps
    rejected = policy_rejected_logps - reference_rejected_logps
    ratios = torch.exp(torch.clamp(chosen, max=20.0)) - torch.exp(torch.clamp(rejected, max=20.0))
    return -F.logsigmoid(beta * (ratios + (chosen - rejected)))
