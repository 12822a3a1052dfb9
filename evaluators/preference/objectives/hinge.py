"""Hinge loss on the implicit reward margin, as in SLiC and RSO.

    L = max(0, 1 - beta * d),   d = (lw - rw) - (ll - rl)

Papers: Zhao et al. 2023, "SLiC-HF", arXiv:2305.10425; Liu et al. 2023, "Statistical Rejection Sampling Improves
Preference Optimization", arXiv:2309.06657, equation 10 (normalised by the reference).
"""

import torch


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    return torch.relu(1 - beta * margin)
