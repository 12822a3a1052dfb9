"""Quantile reward policy optimisation: regression of the log-ratio on an absolute target, with the exact partition function.

    L = (q - beta * log Z - beta * h)^2,   log Z = log(beta * (exp(1 / beta) - 1)),   h = log pi / ref

q is the share of the reference's responses to the prompt whose score is at most this one's: it is uniform under the
reference, so Z is known. On a tabular policy the optimum is pi = ref * exp(q / beta) / Z. Labels are not used. The
authors' code drops the -1 in Z, which is negligible for beta below 0.2. Other transformations of q have other Z.

Inputs: log-probs of single responses; score_quantile.
Defaults: the identity transformation; beta 0.1, tuned from 0.0003 to 0.003.
Paper: Matrenok et al. 2025, "Quantile Reward Policy Optimization: Alignment with Pointwise Regression and Exact Partition
Functions", arXiv:2507.08068.
"""

import math


def loss(policy_logps, reference_logps, desirable, score_quantile, beta):
    log_partition = math.log(beta) + 1 / beta + math.log1p(-math.exp(-1 / beta))
    target = score_quantile - beta * log_partition
    return (target - beta * (policy_logps - reference_logps)) ** 2
