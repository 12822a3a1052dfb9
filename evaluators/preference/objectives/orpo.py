"""Odds ratio preference optimisation: fine-tuning on the chosen response, plus the log odds ratio of both, no reference.

    L = -lw / n - beta * log sigmoid(log(pw / (1 - pw)) - log(pl / (1 - pl))),   p = exp(l / |y|)

with n the mean length of the batch's chosen responses, so that the first term's mean is the loss per token, as in TRL. A
probability of 1 is kept 1e-6 nats away: there the odds have no finite value.

Inputs: log-probs of pairs under the policy; chosen_length, rejected_length.
Defaults: beta (lambda in the paper) 0.1.
Paper: Hong et al. 2024, "ORPO: Monolithic Preference Optimization without Reference Model", arXiv:2403.07691, equations 6
and 7.
"""

import torch
import torch.nn.functional as F


def log1mexp(x):
    """log(1 - exp(x)) for x < 0, without cancellation at either end."""
    near = torch.log(-torch.expm1(torch.clamp(x, min=-0.6931471805599453)))
    far = torch.log1p(-torch.exp(torch.clamp(x, max=-0.6931471805599453)))
    return torch.where(x > -0.6931471805599453, near, far)


def loss(
    policy_chosen_logps,
    policy_rejected_logps,
    reference_chosen_logps,
    reference_rejected_logps,
    chosen_length,
    rejected_length,
    beta,
):
    chosen = torch.clamp(policy_chosen_logps / chosen_length, max=-1e-6)
    rejected = torch.clamp(policy_rejected_logps / rejected_length, max=-1e-6)
    log_odds_ratio = (chosen - log1mexp(chosen)) - (rejected - log1mexp(rejected))
    imitation = -policy_chosen_logps / chosen_length.to(policy_chosen_logps.dtype).mean()
    return imitation - beta * F.logsigmoid(log_odds_ratio)
