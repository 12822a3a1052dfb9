"""KTO on pairs as DiscoPOP's search began with it: the reference points carry gradient.

    kl_w = max(0, mean(lw - rw)),   kl_l = max(0, mean(ll - rl))
    L    = [1 - sigmoid(beta * ((lw - rw) - kl_l))] / 2 + [1 - sigmoid(beta * (kl_w - (ll - rl)))] / 2

Where `kto_pair` holds the two means fixed, as the KTO paper asks, this differentiates them too: each chosen response is also
pushed through the reference point of the rejected ones. The authors' code returns the two halves as 2B values; they are
averaged here, one loss per pair, which leaves the batch mean and its gradient the same.

Inputs: log-probs of pairs.
Defaults: beta 0.05.
Paper: Lu et al. 2024, "Discovering Preference Optimization Algorithms with and for Large Language Models",
arXiv:2406.08414; the authors' code, where the search's archive is seeded.
"""

import torch


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    chosen = policy_chosen_logps - reference_chosen_logps
    rejected = policy_rejected_logps - reference_rejected_logps
    chosen_kl = chosen.mean().clamp(min=0)
    rejected_kl = rejected.mean().clamp(min=0)
    desirable = 1 - torch.sigmoid(beta * (chosen - rejected_kl))
    undesirable = 1 - torch.sigmoid(beta * (chosen_kl - rejected))
    return (desirable + undesirable) / 2
