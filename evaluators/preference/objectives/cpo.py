"""Contrastive preference optimisation: DPO with a uniform reference, and fine-tuning on the chosen response.

    L = -log sigmoid(beta * (lw - ll)) - alpha * lw / n

with n the mean length of the batch's chosen responses, so that the second term's mean is the loss per token, as in TRL.

Inputs: log-probs of pairs under the policy; chosen_length.
Defaults: alpha 1, beta 0.1.
Paper: Xu et al. 2024, "Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine
Translation", arXiv:2401.08417, equation 3.
"""

import torch.nn.functional as F


def loss(
    policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, chosen_length, beta
):
    imitation = -policy_chosen_logps / chosen_length.to(policy_chosen_logps.dtype).mean()
    return -F.logsigmoid(beta * (policy_chosen_logps - policy_rejected_logps)) + imitation
