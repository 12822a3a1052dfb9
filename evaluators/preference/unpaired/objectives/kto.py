"""Kahneman-Tversky optimisation: each response is judged by itself against a reference point.

    desirable: L = wD * (1 - sigmoid(beta * (h - z0))),   undesirable: L = wU * (1 - sigmoid(beta * (z0 - h)))

with h = log pi / ref and z0 = max(0, KL estimate), a constant to the gradient. The trainer estimates it from responses to
other prompts of the batch. z0 = 0 is `apo_zero_unpaired`.

Inputs: log-probs and labels of single responses; kl_estimate.
Defaults: wD 1, wU 1, beta 0.1.
Paper: Ethayarajh et al. 2024, "KTO: Model Alignment as Prospect Theoretic Optimization", arXiv:2402.01306.
"""

import torch


def loss(policy_logps, reference_logps, desirable, beta, kl_estimate):
    gain = policy_logps - reference_logps - max(kl_estimate, 0.0)
    return torch.sigmoid(beta * torch.where(desirable, -gain, gain))
