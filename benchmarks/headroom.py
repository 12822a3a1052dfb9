"""How far below 1.0 the losses of `preference.enumerable` have to stay, and why.

python -m benchmarks.headroom                # the table of docs/evaluators/enumerable.md, in about half an hour
python -m benchmarks.headroom --seeds 1 --regimes base --json

Two limits beside the physical one, each per regime and as the mean:

- network: what the trained output layer can express. The exact gradient of E[reward] - lambda * KL over all responses, the
  true reward known, from the reference, for a grid of lambda.
- data: what the training pairs tell. The KL-optimal policies q ~ ref * exp(E[reward | pairs] / lambda) under the posterior
  of the planted reward, with the prior that it is planted from and the labelling known. Sampled part by part, by elliptical
  slice sampling (Murray, Adams and MacKay 2010, arXiv:1001.0175) and changes of sign, in two chains, whose difference is
  printed. No loss is told as much.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.model import all_logps
from evaluators.preference.enumerable.optimum import standardise
from evaluators.preference.enumerable.options import EnumerableOptions
from evaluators.preference.enumerable.responses import Tree, tree
from evaluators.preference.enumerable.reward import Planter
from evaluators.preference.enumerable.scoring import frontier_area
from evaluators.preference.enumerable.worlds import World, build_world, sigmoid

Floats = NDArray[np.float64]
Random = np.random.Generator
Block = tuple[int, slice]

LAMBDAS = (0.2, 0.35, 0.6, 1.0, 1.8, 3.2)  # of the exact gradient: spend from over 2 nats down to next to none
STEPS, RATE = 400, 0.03  # of Adam on it; twice the steps add less than 0.002 (--steps 800)
SHARPNESSES = np.geomspace(0.01, 100, 60)  # 1 / lambda of the policies of a posterior: no training, so many are free
BURN_IN = 0.2  # share of a chain that is left out


@dataclass(frozen=True)
class Limits:
    """What can be reached in one world, relative to the optimal policies.

    Attributes:
        network: by the output layer.
        data: from the pairs, mean of the chains.
        chains: largest difference of a chain from that.
    """

    network: float
    data: float
    chains: float


def limits(world: World, responses: Tree, steps: int, samples: int) -> Limits:
    """Both limits of one world."""
    means = [posterior_mean(world, responses, samples, chain) for chain in range(2)]
    data = [_area(*_policies(world, mean)) / world.areas[d.KL_BUDGET] for mean in means]
    both = _area(*_policies(world, np.mean(means, 0))) / world.areas[d.KL_BUDGET]
    return Limits(network_limit(world, responses, steps), both, max(abs(x - both) for x in data))


def network_limit(world: World, responses: Tree, steps: int) -> float:
    """Frontier of policies that follow the exact gradient of E[reward] - lambda * KL."""
    features = torch.from_numpy(world.features)
    weights = torch.from_numpy(world.output)[..., None].repeat(1, 1, len(LAMBDAS)).requires_grad_(True)
    reference, rewards = torch.from_numpy(world.reference_logps), torch.from_numpy(world.rewards)
    price = torch.tensor(LAMBDAS, dtype=torch.float64)
    adam = torch.optim.Adam([weights], lr=RATE)
    for step in range(steps + 1):
        logps = all_logps(features, weights, responses)
        probs, ratio = logps.exp(), logps - reference
        kl, reward = ((probs * x).sum(2).mean(1) for x in (ratio, rewards))
        if step == steps:
            break
        adam.zero_grad()
        (price * kl - reward).sum().backward()  # type: ignore[no-untyped-call]
        adam.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        adam.step()
    spent = kl.detach().clamp(min=0).numpy()
    return _area(spent, reward.detach().numpy()) / world.areas[d.KL_BUDGET]


def posterior_mean(world: World, responses: Tree, samples: int, chain: int) -> Floats:
    """(12, Y) mean of the standardised reward given the labels of the training pairs."""
    random = np.random.default_rng([chain, len(world.train.prompts)])
    prior = _Prior(world, responses)
    state, total, kept = prior.draw(random), np.zeros_like(world.rewards), 0
    likelihood = prior.log_likelihood(state)
    for number in range(samples):
        for block in prior.blocks:
            state, likelihood = _flipped(prior, state, likelihood, block, random)
            state, likelihood = _slice(prior, state, likelihood, block, random)
        if number >= BURN_IN * samples:
            total, kept = total + prior.reward(state), kept + 1
    return total / kept


def _flipped(prior: _Prior, state: Floats, likelihood: float, block: Block, random: Random) -> tuple[Floats, float]:
    """A block's signs turned, or not (Metropolis): rewards of either sign are far apart, and nothing likely lies between."""
    proposed = state.copy()
    proposed[block] *= -1
    found = prior.log_likelihood(proposed)
    return (proposed, found) if found > likelihood + math.log(random.random()) else (state, likelihood)


def _slice(prior: _Prior, state: Floats, likelihood: float, block: Block, random: Random) -> tuple[Floats, float]:
    """A step of elliptical slice sampling in one block."""
    own, other = state[block], random.standard_normal(state[block].shape)
    level = likelihood + math.log(random.random())
    angle = random.uniform(0, 2 * math.pi)
    low, high = angle - 2 * math.pi, angle
    proposed = state.copy()
    while True:
        proposed[block] = own * math.cos(angle) + other * math.sin(angle)
        found = prior.log_likelihood(proposed)
        if found > level:
            return proposed, found
        low, high = (angle, high) if angle < 0 else (low, angle)
        angle = random.uniform(low, high)


class _Prior:
    """What the reward of a world, and what its labeller sees besides, are planted from; and what the labels say of them.

    A state is one or two flat vectors of standard normal numbers: what `reward.Planter` plants from. A block is one part of
    one of them.
    """

    def __init__(self, world: World, responses: Tree) -> None:
        self._world, self._planter = world, Planter(responses, world.reference_logps)
        self._rewards = 1 if world.regime.judge == 1 else 2
        pairs = world.train
        self.blocks = [(r, place) for r in range(self._rewards) for place in self._planter.places.values()]
        self._longer_by = world.regime.length_bias * (responses.lengths[pairs.first] - responses.lengths[pairs.second])

    def draw(self, random: np.random.Generator) -> Floats:
        """(rewards, numbers) of a state."""
        return random.standard_normal((self._rewards, self._planter.numbers))

    def reward(self, state: Floats) -> Floats:
        """(12, Y) standardised reward of a state."""
        return self._planter.plant(state[0])

    def log_likelihood(self, state: Floats) -> float:
        """Of the training pairs: of their labels, and of the responses where a better model made them."""
        world, regime = self._world, self._world.regime
        rewards = seen = self._planter.plant(state[0])
        if self._rewards == 2:
            seen = regime.judge * seen + math.sqrt(1 - regime.judge**2) * self._planter.plant(state[1])
            seen = standardise(seen, world.reference_logps)
        wins = sigmoid(regime.sharpness * world.train.differences(seen) + self._longer_by)
        labels = np.log((1 - regime.flip) * wins + regime.flip * (1 - wins) + 1e-300).sum()
        return float(labels + (self._responses(rewards) if regime.expertise else 0.0))

    def _responses(self, rewards: Floats) -> float:
        """Log-probability of the pairs' responses, in either order, but for a constant."""
        world, pairs = self._world, self._world.train
        logits = world.source_logps + world.regime.expertise * rewards
        if world.regime.near_copies:
            logits[:, 0] = -np.inf  # an empty response has no token to replace
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        first, second = (shares[pairs.prompts, answers] for answers in (pairs.first, pairs.second))
        if world.regime.near_copies:  # one of them was drawn, the other is its copy
            return float(np.log(first + second + 1e-300).sum())
        return float(np.log(first * second * (1 / (1 - first) + 1 / (1 - second)) + 1e-300).sum())


def _policies(world: World, believed: Floats) -> tuple[Floats, Floats]:
    """KL and true reward of the policies that are KL-optimal for another reward."""
    kl, reward = np.zeros(SHARPNESSES.size), np.zeros(SHARPNESSES.size)
    for i, sharpness in enumerate(SHARPNESSES):
        logits = world.reference_logps + sharpness * believed
        logits -= logits.max(1, keepdims=True)
        logps = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        kl[i] = (np.exp(logps) * (logps - world.reference_logps)).sum(1).mean()
        reward[i] = (np.exp(logps) * world.rewards).sum(1).mean()
    return np.maximum(kl, 0), reward


def _area(kl: Floats, reward: Floats) -> float:
    return frontier_area(kl, reward, d.KL_BUDGET)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.headroom", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="worlds of each regime: seeds 0 to N - 1")
    parser.add_argument("--regimes", default=",".join(r.name for r in d.REGIMES), help="names, with commas between")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the exact gradient")
    parser.add_argument("--samples", type=int, default=20000, help="of each chain of the posterior")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    wanted = parser.parse_args(arguments)
    options, found = EnumerableOptions(regimes=tuple(wanted.regimes.split(","))), {}
    responses = tree(options.max_length)
    for regime in options.used_regimes:
        rows = [
            limits(build_world(seed, regime, responses), responses, wanted.steps, wanted.samples)
            for seed in range(wanted.seeds)
        ]
        found[regime.name] = {
            "network": float(np.mean([r.network for r in rows])),
            "data": float(np.mean([r.data for r in rows])),
            "chains": max(r.chains for r in rows),
        }
    found["mean"] = {k: float(np.mean([row[k] for row in found.values()])) for k in ("network", "data", "chains")}
    print(json.dumps(found, indent=2) if wanted.json else _markdown(found, wanted.seeds))


def _markdown(found: Mapping[str, Mapping[str, float]], seeds: int) -> str:
    lines = [f"Seeds 0 to {seeds - 1}.\n", "| regime | network | data | chains differ by |", "|---|---|---|---|"]
    lines += [f"| {name} | {r['network']:.3f} | {r['data']:.3f} | {r['chains']:.3f} |" for name, r in found.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
