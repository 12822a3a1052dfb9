"""Squared loss of the margin, least squares classification in the GPO family.

    L = (1 - z)^2,   z = beta * d,   d = (lw - rw) - (ll - rl)

IPO at half the beta, up to a constant factor: beta^2 * (d - 1 / beta)^2.

Inputs: log-probs of pairs.
Defaults: beta 0.1.
Paper: Tang et al. 2024, "Generalized Preference Optimization: A Unified Approach to Offline Alignment",
arXiv:2402.05749, table 1.
"""


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    return (1 - beta * margin) ** 2
