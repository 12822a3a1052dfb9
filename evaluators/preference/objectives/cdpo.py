"""Conservative DPO (cDPO): cross-entropy with labels that are wrong with a small probability.

    L = -(1 - e) * log sigmoid(z) - e * log sigmoid(-z),   z = beta * d,   d = (lw - rw) - (ll - rl)

The smallest loss is at a finite margin, log((1 - e) / e) / beta. TRL up to 0.28: `sigmoid` with `label_smoothing`; later
versions ignore it there.

Inputs: log-probs of pairs.
Defaults: e 0.1, beta 0.1.
Paper: Mitchell 2023, "A note on DPO with noisy preferences and relationship to IPO" (ericmitchell.ai/cdpo.pdf), equation 3.
"""

import torch.nn.functional as F


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    z = beta * margin
    return -0.9 * F.logsigmoid(z) - 0.1 * F.logsigmoid(-z)
