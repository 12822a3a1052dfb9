"""Self-play preference optimisation with hard labels: each log-ratio is regressed on its own target.

    L = (hw - 1 / (2 * beta))^2 + (hl + 1 / (2 * beta))^2,   hw = lw - rw,   hl = ll - rl

The paper's targets are estimated win rates minus one half, over beta; a hard label is a win rate of 1 or 0.

Inputs: log-probs of pairs.
Defaults: beta 0.001 in the paper, which calls 1 / beta eta; 0.1 in TRL.
Paper: Wu et al. 2024, "Self-Play Preference Optimization for Language Model Alignment", arXiv:2405.00675, equation 4.7.
"""


def loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    chosen = policy_chosen_logps - reference_chosen_logps
    rejected = policy_rejected_logps - reference_rejected_logps
    return (chosen - 0.5 / beta) ** 2 + (rejected + 0.5 / beta) ** 2
