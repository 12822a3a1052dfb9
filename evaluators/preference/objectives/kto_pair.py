"""KTO on pairs: each response is judged against a reference point estimated from the other side of the batch.

    kl_w = max(0, mean(lw - rw)),   kl_l = max(0, mean(ll - rl))        (no gradient)
    L    = [1 - sigmoid(beta * ((lw - rw) - kl_l))] / 2 + [1 - sigmoid(beta * (kl_w - (ll - rl)))] / 2

DiscoPOP's version returns the two halves as 2B values; a candidate returns one loss per pair, so they are averaged, which
leaves the batch mean and its gradient the same. Batch-coupled through the two means.

Papers: Ethayarajh et al. 2024, "KTO", arXiv:2402.01306; pair form as in Lu et al. 2024, arXiv:2406.08414.
"""

import torch


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    chosen = policy_chosen_logps - reference_chosen_logps
    rejected = policy_rejected_logps - reference_rejected_logps
    chosen_kl = chosen.mean().clamp(min=0).detach()
    rejected_kl = rejected.mean().clamp(min=0).detach()
    desirable = 1 - torch.sigmoid(beta * (chosen - rejected_kl))
    undesirable = 1 - torch.sigmoid(beta * (chosen_kl - rejected))
    return (desirable + undesirable) / 2
