"""Identity preference optimisation: squared distance of the log-ratio margin from a finite target.

    L = (d - 1 / (2 * beta))^2,   d = (lw - rw) - (ll - rl)

The log-probs are sums over tokens (TRL from 0.29 divides them by the completion length first). For two responses and a
preference probability p the population optimum has d = (p - 1/2) / beta.

Paper: Azar et al. 2023, "A General Theoretical Paradigm to Understand Learning from Human Preferences",
arXiv:2310.12036, equation 17.
"""


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    return (margin - 1 / (2 * beta)) ** 2
