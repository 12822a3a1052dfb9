"""Binary classifier optimisation on pairs: each response is classified by itself against a shifted threshold.

    L = -log sigmoid(a - delta) - log sigmoid(-(b - delta)),   a = beta * (lw - rw),   b = beta * (ll - rl)

delta is the running mean of all implicit rewards so far, a constant to the gradient; the trainer keeps it, as
running_log_ratio, and beta scales it. TRL up to 0.28 does the same; later versions set delta to 0.

Inputs: log-probs of pairs; running_log_ratio.
Defaults: beta 0.1.
Paper: Jung et al. 2024, "Binary Classifier Optimization for Large Language Model Alignment", arXiv:2404.04656.
"""

import torch.nn.functional as F


def loss(
    policy_chosen_logps,
    policy_rejected_logps,
    reference_chosen_logps,
    reference_rejected_logps,
    beta,
    running_log_ratio,
):
    chosen = policy_chosen_logps - reference_chosen_logps - running_log_ratio
    rejected = policy_rejected_logps - reference_rejected_logps - running_log_ratio
    return -F.logsigmoid(beta * chosen) - F.logsigmoid(-beta * rejected)
