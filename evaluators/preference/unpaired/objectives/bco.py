"""Binary classifier optimisation: a classifier of desirable responses whose logit is the implicit reward, shifted.

    desirable: L = -log sigmoid(beta * h - delta),   undesirable: L = -log sigmoid(-(beta * h - delta)),   h = log pi / ref

delta is the running mean of all implicit rewards so far, a constant to the gradient; the trainer keeps it, as
running_log_ratio, and beta scales it. The paper's weights for undesirable prompts of another distribution are 1 here.

Inputs: log-probs and labels of single responses; running_log_ratio.
Defaults: beta 0.1.
Paper: Jung et al. 2024, "Binary Classifier Optimization for Large Language Model Alignment", arXiv:2404.04656.
"""

import torch
import torch.nn.functional as F


def loss(policy_logps, reference_logps, desirable, beta, running_log_ratio):
    gain = policy_logps - reference_logps - running_log_ratio
    return -F.logsigmoid(beta * torch.where(desirable, gain, -gain))
