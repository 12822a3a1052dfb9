"""Family F1: pairs of sequence log-probabilities (the interface of Lu et al. 2024, arXiv:2406.08414)."""

from __future__ import annotations

from sandbox.contract import Contract, ScalarInput, TensorInput

PAIRS = Contract(
    name="preference.pairs",
    function="loss",
    description=(
        "Offline preference optimisation of a language model. Each example is a prompt with a chosen and a rejected "
        "response; a log-prob is the sum over the response's tokens. The policy starts equal to the reference. The mean of "
        "the returned per-example losses is minimised by gradient descent on the policy."
    ),
    tensors=(
        TensorInput("policy_chosen_logps", "log-prob of the chosen response under the policy", -80.0, -1.0, True),
        TensorInput("policy_rejected_logps", "log-prob of the rejected response under the policy", -80.0, -1.0, True),
        TensorInput("reference_chosen_logps", "log-prob of the chosen response under the reference", -80.0, -1.0),
        TensorInput("reference_rejected_logps", "log-prob of the rejected response under the reference", -80.0, -1.0),
    ),
    scalars=(
        ScalarInput("beta", "strength of the pull towards the reference; larger stays closer", 0.1, (0.05, 0.2, 0.8)),
        ScalarInput("progress", "how far training is: 0 at the first step, 1 at the last", 0.5, (0.5,), optional=True),
    ),
    scale_scalar="beta",
)
