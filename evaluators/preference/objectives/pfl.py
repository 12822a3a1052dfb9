"""Policy focused loss (PFL), discovered beside LRML: a weak logistic loss on pairs ranked right, a strong hinge on others.

    L = -log sigmoid(z) / 2 where d > 0,   2 * max(0, 1 - z) elsewhere,   z = beta * d,   d = (lw - rw) - (ll - rl)

It jumps at d = 0. The code that plots it decides by the margin d, as here; the code that trains it asks whether the chosen
response is more likely than the rejected one, without the reference.

Inputs: log-probs of pairs.
Defaults: focus scale 2, beta 0.05.
Paper: Lu et al. 2024, "Discovering Preference Optimization Algorithms with and for Large Language Models",
arXiv:2406.08414, appendix; the authors' code.
"""

import torch
import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    z = beta * margin
    return torch.where(margin > 0, -F.logsigmoid(z) / 2, 2 * torch.relu(1 - z))
