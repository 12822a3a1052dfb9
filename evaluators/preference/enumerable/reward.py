"""The planted reward: parts of fixed shares of its variance, so that worlds differ in what is good, not in how hard it is.

Each part is a sum of features of the response, made orthogonal to the parts before it and of deviation 1 under the
reference, for each prompt. P prompts, Y responses, T the greatest length, V tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluators.preference.enumerable import definition as d
from evaluators.preference.enumerable.responses import Tree

Floats = NDArray[np.float64]

_NOTHING = 1e-6  # of a part's deviation, left when it is a combination of earlier ones, as with very short responses


class Planter:
    """Rewards under one reference, each a function of independent standard normal numbers.

    Attributes:
        numbers: how many.
        places: of each part's numbers among them, by name.
    """

    def __init__(self, tree: Tree, logps: Floats) -> None:
        """`logps`: (P, Y) of the reference."""
        self._probs = np.exp(logps)
        self._probs /= self._probs.sum(1, keepdims=True)
        self._lengths = tree.lengths.astype(np.float64)
        placed = _placed(tree)
        self._tokens = placed.reshape(tree.responses, tree.max_length, d.VOCABULARY).sum(1)  # (Y, V)
        self._placed, self._bigrams = placed, _bigrams(tree)  # (Y, T * V), (Y, V * V)
        sizes = {
            "length": 1,
            "token": self._tokens.shape[1],
            "bigram": self._bigrams.shape[1],
            "topic": d.PROMPTS * placed.shape[1],
            "residual": logps.size,
        }
        ends = np.cumsum([sizes[name] for name in d.REWARD_SHARES]).tolist()
        self.numbers = ends[-1]
        self.places = {name: slice(end - sizes[name], end) for name, end in zip(d.REWARD_SHARES, ends, strict=True)}

    def plant(self, numbers: Floats) -> Floats:
        """(P, Y) of mean 0 and deviation 1 under the reference, for each prompt."""
        drawn = {name: numbers[place] for name, place in self.places.items()}
        parts = {
            "length": np.sign(drawn["length"]) * self._lengths,
            "token": self._tokens @ drawn["token"],
            "bigram": self._bigrams @ drawn["bigram"],
            "topic": drawn["topic"].reshape(d.PROMPTS, -1) @ self._placed.T,
            "residual": drawn["residual"].reshape(self._probs.shape),
        }
        total = np.zeros_like(self._probs)
        basis: list[Floats] = []
        for name, share in d.REWARD_SHARES.items():
            part = self._apart(np.broadcast_to(parts[name], total.shape), basis)
            basis.append(part)
            total += np.sqrt(share) * part
        return total / np.sqrt(self._mean(total**2))

    def _apart(self, part: Floats, basis: list[Floats]) -> Floats:
        """(P, Y) what of a part no earlier one says, of deviation 1; 0 where that is nothing."""
        part = part - self._mean(part)
        whole = np.sqrt(self._mean(part**2))
        for earlier in basis:
            part = part - self._mean(part * earlier) * earlier
        left = np.sqrt(self._mean(part**2))
        return np.where(left > _NOTHING * whole, part / np.where(left > 0, left, 1.0), 0.0)

    def _mean(self, values: Floats) -> Floats:
        """(P, 1) under the reference."""
        return np.asarray((self._probs * values).sum(1, keepdims=True))


def _placed(tree: Tree) -> Floats:
    """(Y, T * V) 1 where a response has that token at that place."""
    found = np.zeros((tree.responses, tree.max_length, d.VOCABULARY))
    for place in range(tree.max_length):
        here = np.flatnonzero(tree.lengths > place)
        found[here, place, tree.symbols[here, place]] = 1
    return found.reshape(tree.responses, -1)


def _bigrams(tree: Tree) -> Floats:
    """(Y, V * V) how often each token follows each."""
    found = np.zeros((tree.responses, d.VOCABULARY**2))
    for place in range(1, tree.max_length):
        here = np.flatnonzero(tree.lengths > place)
        found[here, tree.symbols[here, place - 1] * d.VOCABULARY + tree.symbols[here, place]] += 1
    return found
