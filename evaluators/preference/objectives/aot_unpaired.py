"""Alignment by optimal transport, unpaired: log-ratios of chosen responses dominate those of rejected ones as distributions.

    L_k = -log sigmoid(beta * (s_k - t_k)),   s = sort(lw - rw),   t = sort(ll - rl)

over the batch: the k-th smallest of one side is compared with the k-th smallest of the other, of whatever pairs they are.
A batch of one pair is DPO. The k-th loss belongs to a rank, not to a pair.

Inputs: log-probs of pairs.
Defaults: beta 0.1.
Paper: Melnyk et al. 2024, "Distributional Preference Alignment of LLMs via Optimal Transport", arXiv:2406.05882.
"""

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    chosen = torch.sort(policy_chosen_logps - reference_chosen_logps, dim=0).values
    rejected = torch.sort(policy_rejected_logps - reference_rejected_logps, dim=0).values
    return -F.logsigmoid(beta * (chosen - rejected))
