"""Preference optimisation as probabilistic inference (PMPO): likelihood of accepted against rejected responses, and a KL.

    L = -a * E_accepted[log pi] + (1 - a) * E_rejected[log pi] + beta * KL(ref || pi)

The expectations are means over the batch's desirable and undesirable responses; the KL is estimated by one fresh response
of the reference for each example. On a tabular policy the optimum is pi ~ a * accepted - (1 - a) * rejected + beta * ref
where that is positive everywhere; otherwise the loss has no lower bound, which is a property and no fault. Works with
labels of one kind only.

Inputs: log-probs and labels of single responses; sample_policy_logps, sample_reference_logps.
Defaults: a 0.5, beta 0.5 to 2.
Paper: Abdolmaleki et al. 2024, "Preference Optimization as Probabilistic Inference", arXiv:2410.04166, equation 10.
"""


def loss(policy_logps, reference_logps, desirable, sample_policy_logps, sample_reference_logps, beta):
    accepted = desirable.to(policy_logps.dtype)
    rejected = 1 - accepted
    smallest = 1 / len(policy_logps)
    positive = accepted / accepted.mean().clamp(min=smallest)
    negative = rejected / rejected.mean().clamp(min=smallest)
    divergence = sample_reference_logps - sample_policy_logps
    return (0.5 * negative - 0.5 * positive) * policy_logps + beta * divergence
