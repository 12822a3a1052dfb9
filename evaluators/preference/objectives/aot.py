"""Alignment by optimal transport, paired: the policy's margins dominate the reference's as distributions.

    L_k = -log sigmoid(beta * (s_k - t_k)),   s = sort(lw - ll),   t = sort(rw - rl)

over the batch: the k-th smallest margin of the policy is compared with the k-th smallest of the reference, of whatever
pairs they are. A batch of one pair is DPO. The k-th loss belongs to a rank, not to a pair.

Inputs: log-probs of pairs.
Defaults: beta 0.1.
Paper: Melnyk et al. 2024, "Distributional Preference Alignment of LLMs via Optimal Transport", arXiv:2406.05882.
"""

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    policy = torch.sort(policy_chosen_logps - policy_rejected_logps, dim=0).values
    reference = torch.sort(reference_chosen_logps - reference_rejected_logps, dim=0).values
    return -F.logsigmoid(beta * (policy - reference))
