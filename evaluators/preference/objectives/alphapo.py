"""AlphaPO: SimPO with a reward whose shape an exponent sets.

    L = -log sigmoid(beta * (r(pw) - r(pl) - ratio)),   r(p) = (1 - p^-alpha) / alpha,   p = exp(l / |y|)

alpha -> 0 is SimPO; a positive alpha pushes harder where the average log-prob is low. ratio = gamma / beta, the target
margin. The exponent is capped at 80, beyond which a power leaves single precision.

Inputs: log-probs of pairs under the policy; chosen_length, rejected_length.
Defaults: alpha 0.25, ratio 0.25; beta 2.5.
Paper: Gupta et al. 2025, "AlphaPO: Reward Shape Matters for LLM Alignment", arXiv:2501.03884.
"""

import torch
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
    chosen = -torch.expm1(torch.clamp(-0.25 * policy_chosen_logps / chosen_length, max=80.0)) / 0.25
    rejected = -torch.expm1(torch.clamp(-0.25 * policy_rejected_logps / rejected_length, max=80.0)) / 0.25
    return -F.logsigmoid(beta * (chosen - rejected - 0.25))
