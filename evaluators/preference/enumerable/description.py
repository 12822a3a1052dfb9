"""The task in words, for whoever proposes losses. Importable without torch."""

from __future__ import annotations

from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.options import EnumerableOptions, UnpairedOptions
from evaluators.preference.enumerable.responses import count

_EXTRA = (
    "Of the optional inputs, scores are those of a reward model whose correlation with the reward is {correlation:g}, in "
    "deviations of the reference for each prompt, and lengths count up to {longest} symbols"
)


def describe(options: EnumerableOptions) -> str:
    """What is trained and scored with these options, in a few sentences of one paragraph."""
    extra = _extra(options) + "; preference_probability is what the labelling would be with those scores."
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
    extra = _extra(options) + "; score_quantile is that of the score."
    return _describe(options, f"batches of {options.batch} responses", split, extra)


def _extra(options: EnumerableOptions) -> str:
    return _EXTRA.format(longest=options.max_length + 1, correlation=d.PROXY_CORRELATION)


def _describe(options: EnumerableOptions, batches: str, split: str, extra: str) -> str:
    betas, rates = (", ".join(f"{v:g}" for v in grid) for grid in (options.used_betas, options.used_learning_rates))
    base, regimes = d.REGIMES[0], options.used_regimes
    worlds = "; ".join(f"{r.name}: {_difference(r, base)}" for r in regimes if r is not base)
    others = f" The others are like it, but for what is named. {worlds}." if worlds else ""
    caveats = "".join(f" {text[0].upper()}{text[1:]}." for text in narrow(options))
    return (
        f"The language model is a frozen recurrent network of width {d.WIDTH} with a trained output layer, and all its "
        f"{count(options.max_length):,} possible responses of up to {options.max_length} tokens to each of {d.PROMPTS} "
        "prompts are enumerated, so KL and expected reward are exact sums. One trial trains a separate policy in each of "
        f"{len(regimes)} worlds for each beta of {betas} at each learning rate of {rates}, all with the same loss: "
        f"{options.steps} steps of Adam (the learning rate falls to 0) on {batches}, so few pairs are seen again and "
        "again. Gradients have norm 1 and only the policies at the end of training count, which make a reward-KL frontier "
        "in each world; so neither the scale of a loss, nor a schedule of that scale, nor a rescaled beta can gain "
        f"anything.{caveats} The worlds are regimes of preference data. {base.name}: {base.pairs} pairs "
        f"sampled from the reference, labelled with P(a preferred to b) = sigmoid({base.sharpness:g} * (reward(a) - "
        f"reward(b))).{others}{split} In each world the frontier is compared with that of the exactly optimal policies up "
        f"to a KL of {d.KL_BUDGET:g} nats; the score `frontier` is the mean over the worlds. {extra}"
    )


def narrow(options: EnumerableOptions) -> list[str]:
    """What a grid of one value means for the ranking, a clause each."""
    found = []
    if len(options.used_learning_rates) == 1:
        found.append("there is but one learning rate, so losses are also ranked by how well it suits them")
    if len(options.used_betas) == 1:
        found.append("there is but one beta, so a rescaled loss scores otherwise")
    return found


def _difference(regime: d.Regime, base: d.Regime) -> str:
    """In what a regime differs from the base."""
    said = {
        "pairs": f"{regime.pairs} pairs",
        "sharpness": f"a sharpness of {regime.sharpness:g}, so that labels are nearly deterministic",
        "flip": f"{regime.flip:.0%} of the labels are turned over at random",
        "judge": f"the labeller sees a reward whose correlation with the true one is {regime.judge:g}",
        "from_reference": "responses come from another source than the reference",
        "expertise": f"as from a better model, responses have P ~ that source's * exp({regime.expertise:g} * reward)",
        "length_bias": f"labels also favour length, by {regime.length_bias:g} in the sigmoid for each token",
        "near_copies": "the two responses differ in a single token",
    }
    return ", ".join(text for name, text in said.items() if getattr(regime, name) != getattr(base, name))
