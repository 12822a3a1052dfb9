"""Dynamic blended adaptive quantile loss (DBAQL), discovered beside LRML: logistic and exponential, blended by variance.

    v = sigmoid(var d),   L = v * -log sigmoid(z / 0.9) + (1 - v) * exp(-0.9 * z)

with z = beta * d and d = (lw - rw) - (ll - rl); the variance is over the batch, with N - 1. The sign in the exponential is
that of the code that trains it; the code that plots it has exp(+0.9 * z), which pushes the chosen response down from the
first step. The training code takes the variance of z / 0.05. The product (1 - v) * exp(-0.9 * z) is written as one
exponential: a large variance meets a large z.

Inputs: log-probs of pairs.
Defaults: temperature 0.9, beta 0.05.
Paper: Lu et al. 2024, "Discovering Preference Optimization Algorithms with and for Large Language Models",
arXiv:2406.08414, appendix; the authors' code.
"""

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    z = beta * margin
    count = len(margin)
    variance = margin.var(unbiased=False) * (count / max(count - 1, 1))  # 0, not NaN, for a single pair
    logistic = torch.sigmoid(variance) * -F.logsigmoid(z / 0.9)
    return logistic + torch.exp(F.logsigmoid(-variance) - 0.9 * z)
