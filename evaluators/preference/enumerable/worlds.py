"""The worlds of one seed: frozen network, reference, planted reward, labelled pairs, held-out pairs.

Every array is a function of the seed, the regime and the greatest length alone. Y responses to each of 12 prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable import model
from evaluators.preference.enumerable.optimum import optimal_areas, standardise
from evaluators.preference.enumerable.responses import Tree
from evaluators.preference.enumerable.reward import Planter

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def sigmoid(x: Floats) -> Floats:
    """Logistic function without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -x)))


@dataclass(frozen=True)
class Pairs:
    """N pairs of different responses to the same prompt. In training pairs the first is the chosen one; all are (N,)."""

    prompts: Ints
    first: Ints
    second: Ints

    def differences(self, values: Floats) -> Floats:
        """(N,) value of the first less that of the second; `values` are (12, Y)."""
        return np.asarray(values[self.prompts, self.first] - values[self.prompts, self.second])


@dataclass(frozen=True)
class World:
    """One regime of one seed.

    Attributes:
        features: (12 * C, F) float32, of the frozen network.
        output: (F, 3) float32, the reference's output layer.
        reference_logps: (12, Y).
        source_logps: (12, Y) of the model whose responses the pairs are made of, before `expertise` improves it.
        rewards: (12, Y), mean 0 and deviation 1 under the reference for each prompt.
        proxies: (12, Y), what a reward model says: correlated with the rewards, and standardised like them.
        train, held_out: pairs; held-out responses come about like the training ones.
        preferred: (N,) probability that the first of a held-out pair is preferred; never biased.
        soft_labels: (N,) probability of the label of a training pair, were the proxies what the labeller sees.
        areas: KL budget -> area under the optimal policies' rewards.
    """

    regime: d.Regime
    features: model.Floats
    output: model.Floats
    reference_logps: Floats
    source_logps: Floats
    rewards: Floats
    proxies: Floats
    train: Pairs
    held_out: Pairs
    preferred: Floats
    soft_labels: Floats
    areas: dict[float, float]


@dataclass(frozen=True)
class Worlds:
    """All worlds of a seed, with the tree of their responses."""

    seed: int
    tree: Tree
    worlds: tuple[World, ...]


def build_worlds(seed: int, regimes: Sequence[d.Regime], tree: Tree) -> Worlds:
    """Plant and label everything, on the CPU."""
    return Worlds(seed, tree, tuple(build_world(seed, regime, tree) for regime in regimes))


def build_world(seed: int, regime: d.Regime, tree: Tree) -> World:
    """One of them."""
    random = {
        p: d.generator(seed, regime.name, p) for p in ("features", "reference", "reward", "judge", "proxy", "labels")
    }
    features = model.features(random["features"], tree)
    output = model.output_layer(random["reference"], tree)
    logps = _logps(features, output, tree)
    planter = Planter(tree, logps)
    rewards = planter.plant(random["reward"].standard_normal(planter.numbers))
    seen = _blend(regime.judge, rewards, random["judge"], planter, logps)
    proxies = _blend(d.PROXY_CORRELATION, rewards, random["proxy"], planter, logps)
    source = logps
    if not regime.from_reference:
        source = _logps(features, model.output_layer(d.generator(seed, regime.name, "behaviour"), tree), tree)
    behaviour = source + regime.expertise * rewards  # not normalised: only differences matter when pairs are drawn
    drawn = _draw_pairs(d.generator(seed, regime.name, "pairs"), behaviour, regime, regime.pairs, tree)
    train = _label(random["labels"], drawn, label_probabilities(drawn, seen, regime, tree))
    held_out = _draw_pairs(d.generator(seed, regime.name, "held out"), behaviour, regime, d.HELD_OUT_PAIRS, tree)
    return World(
        regime, features, output, logps, source, rewards, proxies, train, held_out,
        preferred=sigmoid(regime.sharpness * held_out.differences(rewards)),
        soft_labels=label_probabilities(train, proxies, regime, tree),
        areas=optimal_areas(logps, rewards, (*d.OTHER_KL_BUDGETS, d.KL_BUDGET)),
    )  # fmt: skip


def batch_schedule(seed: int, regime: d.Regime, steps: int, batch: int) -> Ints:
    """(steps, batch) indices of training pairs: permutations of all of them, one after the other."""
    random = d.generator(seed, regime.name, "batches")
    epochs = -(-steps * batch // regime.pairs)
    order = np.concatenate([random.permutation(regime.pairs) for _ in range(epochs)])
    return order[: steps * batch].reshape(steps, batch)


def label_probabilities(pairs: Pairs, seen: Floats, regime: d.Regime, tree: Tree) -> Floats:
    """(N,) probability that the regime's labelling prefers the first: with its length bias and its flips."""
    longer_by = tree.lengths[pairs.first] - tree.lengths[pairs.second]
    unflipped = sigmoid(regime.sharpness * pairs.differences(seen) + regime.length_bias * longer_by)
    return (1 - regime.flip) * unflipped + regime.flip * (1 - unflipped)


def _logps(features: model.Floats, output: model.Floats, tree: Tree) -> Floats:
    """(12, Y) log-probs of the responses with one output layer."""
    found = model.all_logps(torch.from_numpy(features), torch.from_numpy(output)[..., None], tree)
    return np.asarray(found[0].numpy(), np.float64)


def _blend(correlation: float, rewards: Floats, random: np.random.Generator, planter: Planter, logps: Floats) -> Floats:
    """Another reward of that correlation with `rewards` under the reference, but for chance; standardised."""
    if correlation == 1:
        return rewards
    other = planter.plant(random.standard_normal(planter.numbers))
    return standardise(correlation * rewards + np.sqrt(1 - correlation**2) * other, logps)


def _draw_pairs(random: np.random.Generator, logps: Floats, regime: d.Regime, count: int, tree: Tree) -> Pairs:
    """Prompts uniform; two responses without replacement: the two largest log-probs after adding Gumbel noise.

    A constant added to the log-probs of a prompt changes nothing.

    Near-copies: the largest of the responses that are not empty, and the same with one token, at a uniform place, replaced
    by a uniform other one.
    """
    prompts = random.integers(d.PROMPTS, size=count)
    noisy = logps[prompts] + random.gumbel(size=(count, tree.responses))
    if regime.near_copies:
        noisy[:, 0] = -np.inf
    first = noisy.argmax(1)
    if regime.near_copies:
        return Pairs(prompts, first, _near_copy(random, first, tree))
    noisy[np.arange(count), first] = -np.inf
    return Pairs(prompts, first, noisy.argmax(1))


def _near_copy(random: np.random.Generator, answers: Ints, tree: Tree) -> Ints:
    """(N,) each response with one token replaced."""
    lengths = tree.lengths[answers]
    places = random.integers(lengths)
    tokens = tree.symbols[answers, places]
    others = (tokens + 1 + random.integers(d.VOCABULARY - 1, size=answers.size)) % d.VOCABULARY
    return np.asarray(answers + (others - tokens) * d.VOCABULARY ** (lengths - 1 - places))


def _label(random: np.random.Generator, pairs: Pairs, first_wins: Floats) -> Pairs:
    """Order every pair by a sampled label."""
    wins = random.random(pairs.prompts.size) < first_wins
    return Pairs(pairs.prompts, np.where(wins, pairs.first, pairs.second), np.where(wins, pairs.second, pairs.first))
