"""DPO on log-ratios per token.

    L = -log sigmoid(beta * (hw / |yw| - hl / |yl|)),   hw = lw - rw,   hl = ll - rl

Equal lengths make it DPO with another beta. TRL's `sigmoid_norm`; also called LN-DPO.

Inputs: log-probs of pairs; chosen_length, rejected_length.
Defaults: beta 0.1 in TRL; 2 and more where lengths are those of whole texts.
Paper: Lambert et al. 2024, "Tulu 3: Pushing Frontiers in Open Language Model Post-Training", arXiv:2411.15124.
"""

import torch.nn.functional as F


def loss(
    policy_chosen_logps,
    policy_rejected_logps,
    reference_chosen_logps,
    reference_rejected_logps,
    chosen_length,
    rejected_length,
    beta,
):
    chosen = (policy_chosen_logps - reference_chosen_logps) / chosen_length
    rejected = (policy_rejected_logps - reference_rejected_logps) / rejected_length
    return -F.logsigmoid(beta * (chosen - rejected))
