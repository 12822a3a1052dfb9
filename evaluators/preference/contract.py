"""Contracts of preference optimisation: pairs of responses (families F1 and F2), and single labelled responses (F3).

The interface of pairs is that of Lu et al. 2024 (arXiv:2406.08414). A loss of the four log-probs alone is of family F1;
one that names an optional input is of family F2. Optional inputs come last and are drawn by themselves in the probe, so
that a new one changes neither the fingerprint nor the id of a loss that does not read it. Scores, their quantiles and soft
labels are privileged: they tell more than the label of an example does.

A batch has at least two examples, so that a standard deviation over it is a number: the evaluators refuse less.
"""

from __future__ import annotations

from sandbox.contract import Contract, ScalarInput, TensorInput, Wanted

_LONGEST = 60.0  # tokens; responses of ordinary log-probs
SMALLEST_BATCH = 2
_BETA = ScalarInput("beta", "strength of the pull towards the reference; larger stays closer", 0.1, (0.05, 0.2, 0.8))
_PROGRESS = ScalarInput(
    "progress", "how far training is: 0 at the first step, 1 at the last", 0.5, (0.5, 0.0, 1.0), optional=True
)


def _policy(
    name: str, description: str, reference: str, wanted: Wanted | None = None, optional: bool = False
) -> TensorInput:
    return TensorInput(
        name, description, -80.0, -1.0, True, optional=optional, reference=reference, below=0.0, wanted=wanted
    )


def _reference(name: str, description: str, optional: bool = False) -> TensorInput:
    return TensorInput(name, description, -80.0, -1.0, optional=optional, below=0.0)


def _length(name: str, whose: str, logps: str) -> TensorInput:
    return TensorInput(
        name,
        f"tokens of {whose} response, its end token counted; at least 1",
        1.0,
        _LONGEST,
        dtype="int64",
        optional=True,
        tokens_of=logps,
    )


def _score(name: str, whose: str, wanted: Wanted) -> TensorInput:
    return TensorInput(
        name,
        f"score of {whose} response under a reward, in standard deviations; larger is better",
        -2.0,
        2.0,
        optional=True,
        privileged=True,
        wanted=wanted,
    )


PAIRS = Contract(
    name="preference.pairs",
    function="loss",
    description=(
        "Offline preference optimisation of a language model. Each example is a prompt with a chosen and a rejected "
        "response; a log-prob is the sum over the response's tokens. The policy starts equal to the reference. The mean of "
        "the returned per-example losses is minimised by gradient descent on the policy."
    ),
    tensors=(
        _policy("policy_chosen_logps", "log-prob of the chosen response under the policy", "reference_chosen_logps", "up"),
        _policy(
            "policy_rejected_logps", "log-prob of the rejected response under the policy", "reference_rejected_logps", "down"
        ),
        _reference("reference_chosen_logps", "log-prob of the chosen response under the reference"),
        _reference("reference_rejected_logps", "log-prob of the rejected response under the reference"),
        _length("chosen_length", "the chosen", "reference_chosen_logps"),
        _length("rejected_length", "the rejected", "reference_rejected_logps"),
        _score("chosen_score", "the chosen", "up"),
        _score("rejected_score", "the rejected", "down"),
        TensorInput(
            "preference_probability",
            "soft label: probability that a labeller prefers the chosen response to the rejected one",
            0.0, 1.0, optional=True, privileged=True, wanted="up",
        ),
    ),
    scalars=(
        _BETA,
        _PROGRESS,
        ScalarInput(
            "running_log_ratio",
            "mean over all steps so far, this one included, of the log-ratios policy to reference of all responses, in nats",
            0.0, (0.3, -4.0, 6.0), optional=True,
        ),
        ScalarInput(
            "moving_margin",
            "moving mean of the batch's mean margin, in nats: 0.9 of its last value (0 at first) plus 0.1 of this step's; "
            "the margin is the log-ratio policy to reference of the chosen response minus that of the rejected one",
            # near the batches' own means in a probe, which lie around 0: what it is compared with in training is near it too
            0.0, (0.3, -1.0, 3.0), optional=True,
        ),
    ),
    scale_scalar="beta",
    smallest_batch=SMALLEST_BATCH,
)  # fmt: skip

UNPAIRED = Contract(
    name="preference.unpaired",
    function="loss",
    description=(
        "Offline preference optimisation of a language model from single responses. Each example is a prompt with one "
        "response and the label whether it is desirable; no example says which other response it was compared with. A "
        "log-prob is the sum over the response's tokens. The policy starts equal to the reference. The mean of the returned "
        "per-example losses is minimised by gradient descent on the policy."
    ),
    tensors=(
        _policy("policy_logps", "log-prob of the response under the policy", "reference_logps", "by_label"),
        _reference("reference_logps", "log-prob of the response under the reference"),
        TensorInput("desirable", "whether the response is desirable", 0.0, 1.0, dtype="bool"),
        _length("length", "the", "reference_logps"),
        _score("score", "the", "up"),
        TensorInput(
            "score_quantile",
            "share of the reference's own responses to the prompt whose score is at most this one's",
            0.0, 1.0, optional=True, privileged=True, wanted="up",
        ),
        _policy(
            "sample_policy_logps",
            "log-prob under the policy of a fresh response to the same prompt, drawn from the reference",
            "sample_reference_logps", optional=True,
        ),
        _reference("sample_reference_logps", "log-prob of that fresh response under the reference", optional=True),
    ),
    scalars=(
        _BETA,
        _PROGRESS,
        ScalarInput(
            "kl_estimate",
            "estimated KL from policy to reference in nats, at least 0: mean log-ratio of responses to other prompts",
            0.0, (0.4, 0.0, 8.0), optional=True,
        ),
        ScalarInput(
            "running_log_ratio",
            "mean over all steps so far, this one included, of the log-ratio policy to reference, in nats",
            0.0, (0.3, -4.0, 6.0), optional=True,
        ),
    ),
    scale_scalar="beta",
    label="desirable",
    smallest_batch=SMALLEST_BATCH,
)  # fmt: skip
