"""Supervised fine-tuning on the chosen response: its negative log-likelihood per token of the batch.

    L = -lw / n,   n = mean of |yw| over the batch

The mean over the batch is the mean over all its tokens, as in TRL's `sft`: neither a sum per response nor a mean of means.
Neither the reference, the rejected response nor beta is used.

Inputs: policy_chosen_logps, chosen_length.
Defaults: none.
Paper: Ouyang et al. 2022, "Training language models to follow instructions with human feedback", arXiv:2203.02155, its first
step; maximum likelihood is older.
"""


def loss(
    policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, chosen_length, beta
):
    return -policy_chosen_logps / chosen_length.to(policy_chosen_logps.dtype).mean()
