"""KTO on pairs: each response is judged against a reference point estimated from the other side of the batch.

    kl_w = max(0, mean(lw - rw)),   kl_l = max(0, mean(ll - rl))        (no gradient)
    L    = [1 - sigmoid(beta * ((lw - rw) - kl_l))] / 2 + [1 - sigmoid(beta * (kl_w - (ll - rl)))] / 2

The reference points are held fixed, as the KTO paper asks; `kto_pair_discopop` differentiates them. Batch-coupled through
the two means.

Inputs: log-probs of pairs.
Defaults: beta 0.1.
Papers: Ethayarajh et al. 2024, "KTO: Model Alignment as Prospect Theoretic Optimization", arXiv:2402.01306; for pairs, each
half of the batch estimates the other's reference point, as in TRL 0.8.
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
