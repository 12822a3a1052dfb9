"""Policy focused loss (PFL), discovered beside LRML: a weak logistic loss on pairs ranked right, a strong hinge on others.

    L = -log sigmoid(z) / 2 where lw > ll,   2 * max(0, 1 - z) elsewhere,   z = beta * d,   d = (lw - rw) - (ll - rl)

As it was trained and reported: a pair is ranked right if the policy finds the chosen response more likely, whatever the
reference says. The loss jumps there. The authors' code that plots it asks for d > 0 instead.

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
    ranked_right = policy_chosen_logps > policy_rejected_logps
    return torch.where(ranked_right, -F.logsigmoid(z) / 2, 2 * torch.relu(1 - z))
