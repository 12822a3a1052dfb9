"""The six worlds of one seed: planted source and reward, reference model, labelled pairs, held-out pairs.

Every array is a function of the seed and the regime alone. W below is the number of worlds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable import responses
from evaluators.preference.enumerable.model import Batch, Parameters, all_logps, initial_parameters, response_logps
from evaluators.preference.enumerable.optimum import optimal_areas, standardise

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def sigmoid(x: Floats) -> Floats:
    """Logistic function without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -x)))


@dataclass(frozen=True)
class Pairs:
    """N pairs of different responses to the same prompt.

    Attributes:
        prompts, first, second: (N,) indices. In training pairs the first is the chosen one.
        logits: (N,) log odds that an unbiased labeller of the regime's sharpness prefers the first.
    """

    prompts: Ints
    first: Ints
    second: Ints
    logits: Floats

    @property
    def preferred(self) -> Floats:
        """(N,) probability that an unbiased labeller prefers the first."""
        return sigmoid(self.logits)


@dataclass(frozen=True)
class World:
    """One regime of one seed.

    Attributes:
        source_logps, reference_logps: (12, 341) log-probs of the planted source and of the reference.
        rewards: (12, 341), mean 0 and deviation 1 under the reference for each prompt.
        train, held_out: pairs; held-out responses come about like the training ones, their labels are never biased.
        areas: KL budget -> area under the optimal policies' rewards.
    """

    regime: d.Regime
    source_logps: Floats
    reference_logps: Floats
    rewards: Floats
    train: Pairs
    held_out: Pairs
    areas: dict[float, float]


@dataclass(frozen=True)
class Worlds:
    """All worlds of a seed; `reference` holds their W reference models."""

    seed: int
    worlds: tuple[World, ...]
    reference: Parameters


def build_worlds(seed: int) -> Worlds:
    """Plant, fit and label everything. About half a second, on the CPU."""
    sources = [_plant_source(d.generator(seed, r.name, "source")) for r in d.REGIMES]
    reference = _fit_reference(seed, sources)
    with torch.no_grad():
        logps = all_logps(reference).numpy()
    worlds = []
    for regime, source, own in zip(d.REGIMES, sources, logps, strict=True):
        rewards = standardise(_plant_reward(d.generator(seed, regime.name, "reward")), own)
        behaviour = own if regime.from_reference else _plant_source(d.generator(seed, regime.name, "behaviour"))
        utilities = regime.sharpness * rewards
        train = _draw_pairs(d.generator(seed, regime.name, "pairs"), behaviour, utilities, regime.pairs)
        train = _label(d.generator(seed, regime.name, "labels"), train, regime)
        held_out = _draw_pairs(d.generator(seed, regime.name, "held out"), behaviour, utilities, d.HELD_OUT_PAIRS)
        areas = optimal_areas(own, rewards, (*d.OTHER_KL_BUDGETS, d.KL_BUDGET))
        worlds.append(World(regime, source, own, rewards, train, held_out, areas))
    return Worlds(seed, tuple(worlds), reference)


def batch_schedule(seed: int, regime: d.Regime, steps: int, batch: int) -> Ints:
    """(steps, batch) indices of training pairs: permutations of all of them, one after the other."""
    random = d.generator(seed, regime.name, "batches")
    epochs = -(-steps * batch // regime.pairs)
    order = np.concatenate([random.permutation(regime.pairs) for _ in range(epochs)])
    return order[: steps * batch].reshape(steps, batch)


def label_probabilities(pairs: Pairs, regime: d.Regime) -> Floats:
    """(N,) probability that the regime's labelling prefers the first: with its length bias and its flips."""
    longer_by = responses.lengths()[pairs.first] - responses.lengths()[pairs.second]
    unflipped = sigmoid(pairs.logits + regime.length_bias * longer_by)
    return (1 - regime.flip) * unflipped + regime.flip * (1 - unflipped)


def _plant_source(random: np.random.Generator) -> Floats:
    """(12, 341) log-probs of a source whose next-token logits add up from previous token, topic and position.

    The topic is the prompt's first token; the token before the response's first is the prompt's second.
    """
    symbols = d.VOCABULARY + 1
    previous = random.standard_normal((d.VOCABULARY, symbols)) * d.SOURCE_PREVIOUS
    topic = random.standard_normal((d.VOCABULARY, symbols)) * d.SOURCE_TOPIC
    position = random.standard_normal((d.MAX_LENGTH, symbols)) * d.SOURCE_POSITION
    position[:, d.EOS] += d.SOURCE_EOS
    themes, before = np.array(d.PROMPTS)[:, 0], responses.tokens_before()  # (12,), (12, 341, 4)
    logits = previous[before] + topic[themes][:, None, None] + position  # (12, 341, 4, 5)
    logps = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.asarray((logps * responses.target_one_hot()).sum((-1, -2)))


def _plant_reward(random: np.random.Generator) -> Floats:
    """(12, 341) raw rewards: sums over tokens, (topic, token) and bigrams, plus a part of each single response."""
    token = random.standard_normal(d.VOCABULARY) * d.REWARD_TOKEN
    topic = random.standard_normal((d.VOCABULARY, d.VOCABULARY)) * d.REWARD_TOPIC
    bigram = random.standard_normal((d.VOCABULARY, d.VOCABULARY)) * d.REWARD_BIGRAM
    residual = random.standard_normal((len(d.PROMPTS), d.RESPONSES)) * d.REWARD_RESIDUAL
    themes, before = np.array(d.PROMPTS)[:, 0], responses.tokens_before()
    per_token = token + topic[themes][:, None, None] + bigram[before]  # (12, 341, 4, 4)
    emitted = responses.target_one_hot()[..., : d.VOCABULARY]  # EOS has no reward of its own
    return np.asarray((per_token * emitted).sum((-1, -2)) + residual)


def _fit_reference(seed: int, sources: list[Floats]) -> Parameters:
    """Maximum likelihood on sequences sampled from each world's source, all worlds at once."""
    count = d.REFERENCE_STEPS * d.REFERENCE_BATCH
    drawn = []
    for regime, source in zip(d.REGIMES, sources, strict=True):
        joint = np.cumsum(np.exp(source).reshape(-1))
        uniform = d.generator(seed, regime.name, "sequences").random(count) * joint[-1]
        drawn.append(np.searchsorted(joint, uniform, side="right").clip(max=joint.size - 1))
    index = np.stack(drawn).reshape(len(sources), d.REFERENCE_STEPS, d.REFERENCE_BATCH)
    parameters = initial_parameters([d.generator(seed, r.name, "weights") for r in d.REGIMES])
    optimiser = torch.optim.Adam(parameters.tensors(), lr=d.REFERENCE_LR, fused=True)
    for step in range(d.REFERENCE_STEPS):
        for group in optimiser.param_groups:
            group["lr"] = d.REFERENCE_LR * (1 - step / d.REFERENCE_STEPS)
        batch = Batch.of(index[:, step] // d.RESPONSES, index[:, step] % d.RESPONSES, torch.device("cpu"))
        optimiser.zero_grad()
        (-response_logps(parameters, batch)).mean(1).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return parameters.to(torch.device("cpu"))


def _draw_pairs(random: np.random.Generator, logps: Floats, utilities: Floats, count: int) -> Pairs:
    """Prompts uniform; two responses without replacement: the two largest log-probs after adding Gumbel noise."""
    prompts = random.integers(len(d.PROMPTS), size=count)
    noisy = logps[prompts] + random.gumbel(size=(count, d.RESPONSES))
    first = noisy.argmax(1)
    noisy[np.arange(count), first] = -np.inf
    second = noisy.argmax(1)
    return Pairs(prompts, first, second, utilities[prompts, first] - utilities[prompts, second])


def _label(random: np.random.Generator, pairs: Pairs, regime: d.Regime) -> Pairs:
    """Order every pair by a sampled label, with the regime's length bias and flips."""
    longer_by = responses.lengths()[pairs.first] - responses.lengths()[pairs.second]
    first_wins = random.random(pairs.prompts.size) < sigmoid(pairs.logits + regime.length_bias * longer_by)
    first_wins ^= random.random(pairs.prompts.size) < regime.flip
    chosen = np.where(first_wins, pairs.first, pairs.second)
    rejected = np.where(first_wins, pairs.second, pairs.first)
    return Pairs(pairs.prompts, chosen, rejected, np.where(first_wins, pairs.logits, -pairs.logits))
