"""Beta-DPO: DPO whose beta rises and falls with the batch, by how far its mean margin is above what it was lately.

    L = -log sigmoid(b * d),   b = max(0.001, beta * (1 + a * (mean d - m)))        (b without gradient)

with d = (lw - rw) - (ll - rl), the mean over the batch, and m the moving mean of those means over the steps: the input
moving_margin. A batch of pairs that lie far apart is pulled to the reference more. Batch-coupled through b. The authors also
drop a fifth of each batch, drawn at random by how far a pair's d is from m; a loss here is a function of its inputs and
keeps all.

Inputs: log-probs of pairs; moving_margin.
Defaults: a 0.6, beta 0.1.
Paper: Wu et al. 2024, "beta-DPO: Direct Preference Optimization with Dynamic beta", arXiv:2407.08639; the authors' code.
"""

import torch.nn.functional as F


def loss(
    policy_chosen_logps,
    policy_rejected_logps,
    reference_chosen_logps,
    reference_rejected_logps,
    beta,
    moving_margin,
):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    above = margin.detach().mean() - moving_margin
    return -F.logsigmoid((beta * (1 + 0.6 * above)).clamp(min=0.001) * margin)
