"""Performance adaptive decay logistic loss (PADLL), discovered beside LRML: DPO, with half the weight on misranked pairs.

    L = 0.9 * (1 - 0.5 * [d < 0]) * -log sigmoid(z),   z = beta * d,   d = (lw - rw) - (ll - rl)

It jumps at d = 0.

Inputs: log-probs of pairs.
Defaults: decay 0.9, mismatch penalty 0.5, beta 0.05.
Paper: Lu et al. 2024, "Discovering Preference Optimization Algorithms with and for Large Language Models",
arXiv:2406.08414, appendix; the authors' code.
"""

import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    mismatch = (margin < 0).to(margin.dtype)
    return 0.9 * (1 - 0.5 * mismatch) * -F.logsigmoid(beta * margin)
