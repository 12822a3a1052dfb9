"""Maximum a posteriori preference optimisation: the rejected side is weighted by how much worse it is known to be.

    L = -log sigmoid(beta * hw - D * beta * hl),   D = score(yw) - score(yl), in [0, 1]

with hw = lw - rw and hl = ll - rl. A gap of 1 is DPO; a pair that is nearly a tie hardly pushes the rejected response
down. Scores are meant on a scale from 0 to 1; a gap outside is clamped.

Inputs: log-probs of pairs; chosen_score, rejected_score.
Defaults: beta 0.1; no other.
Paper: Lan et al. 2025, "MaPPO: Maximum a Posteriori Preference Optimization with Prior Knowledge", arXiv:2507.21183.
"""

import torch
import torch.nn.functional as F


def loss(
    policy_chosen_logps,
    policy_rejected_logps,
    reference_chosen_logps,
    reference_rejected_logps,
    chosen_score,
    rejected_score,
    beta,
):
    gap = torch.clamp(chosen_score - rejected_score, min=0.0, max=1.0)
    chosen = policy_chosen_logps - reference_chosen_logps
    rejected = policy_rejected_logps - reference_rejected_logps
    return -F.logsigmoid(beta * (chosen - gap * rejected))
