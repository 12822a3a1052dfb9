"""The task in words, for whoever proposes losses. Importable without torch."""

from __future__ import annotations

from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.options import EnumerableOptions, UnpairedOptions

_EXTRA = (
    "Of the optional inputs, scores are the rewards themselves, in deviations of the reference for each prompt, and lengths "
    "count up to {longest} symbols"
)


def describe(options: EnumerableOptions) -> str:
    """What is trained and scored with these options, in a few sentences of one paragraph."""
    extra = _EXTRA.format(longest=d.MAX_LENGTH + 1) + (
        "; preference_probability is that of the labelling, with its length bias and its turned labels."
    )
    return _describe(options, f"batches of {options.batch} pairs", "", extra)


def describe_unpaired(options: UnpairedOptions) -> str:
    """The same for single responses."""
    kept = ""
    for side, share in (("chosen", options.desirable_kept), ("rejected", options.undesirable_kept)):
        kept += f" Only {share:.0%} of the {side} responses are used." if share < 1 else ""
    split = (
        " Pairs are then taken apart: a chosen response becomes a desirable example, a rejected one an undesirable example, "
        f"in an order that does not tell which belong together.{kept}"
    )
    extra = _EXTRA.format(longest=d.MAX_LENGTH + 1) + "; score_quantile is exact."
    return _describe(options, f"batches of {options.batch} responses", split, extra)


def _describe(options: EnumerableOptions, batches: str, split: str, extra: str) -> str:
    betas = ", ".join(f"{b:g}" for b in options.betas)
    base, *others = d.REGIMES
    regimes = "; ".join(f"{r.name}: {_difference(r, base)}" for r in others)
    return (
        f"The language model is a recurrent network of width {d.HIDDEN}, and its {d.RESPONSES} possible responses to each "
        f"of {len(d.PROMPTS)} prompts are all enumerated, so KL and expected reward are exact sums; log-probs are mostly "
        f"between -8 and -2. One trial trains a separate policy in each of {len(d.REGIMES)} worlds for each beta of the "
        f"grid {betas}, all with the same loss: {options.steps} steps of Adam (constant learning rate "
        f"{options.learning_rate:g}) on {batches}. The whole grid counts, so a loss must make sense "
        f"at small and at large beta. The worlds are regimes of preference data. {base.name}: {base.pairs} pairs sampled "
        f"from the reference, labelled with P(a preferred to b) = sigmoid({base.sharpness:g} * (reward(a) - reward(b))). "
        f"The others are like it, but for one thing. {regimes}.{split} In each world the rewards and KLs of all betas and "
        f"checkpoints (every {d.CHECKPOINT_EVERY} steps) make a reward-KL frontier, which is compared with that of the "
        f"exactly optimal policies up to a KL of {d.KL_BUDGET:g} nats; the score `frontier` is the mean over the worlds. "
        f"{extra}"
    )


def _difference(regime: d.Regime, base: d.Regime) -> str:
    """In what a regime differs from the base."""
    said = {
        "pairs": f"only {regime.pairs} pairs",
        "sharpness": f"a sharpness of {regime.sharpness:g}, so that labels are nearly deterministic",
        "flip": f"{regime.flip:.0%} of the labels are turned over at random",
        "from_reference": "responses come from a source other than the reference",
        "length_bias": f"labels also favour length, by {regime.length_bias:g} in the sigmoid for each token",
    }
    return " and ".join(text for name, text in said.items() if getattr(regime, name) != getattr(base, name))
