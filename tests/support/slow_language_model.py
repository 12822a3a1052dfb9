"""The language model of `preference.enumerable` from its page alone, in loops: shares no code with the product."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

HIDDEN = 160


class SlowModel:
    """Reads one token after the other, unit by unit."""

    def __init__(self, random: np.random.Generator, longest: int, output: NDArray[np.float64]) -> None:
        self._reads = random.standard_normal((2 + 12, 3 * HIDDEN))
        self._recurs = random.standard_normal((HIDDEN, 3 * HIDDEN)) * 1.2 / math.sqrt(HIDDEN)
        self._longest, self._output = longest, output
        self._states: dict[tuple[int, tuple[int, ...]], NDArray[np.float64]] = {}

    def logp(self, prompt: int, string: tuple[int, ...]) -> float:
        """Log-prob of a response: the sum over its tokens, and over its end unless it is of the longest."""
        symbols = [*string, 2] if len(string) < self._longest else list(string)
        return sum(self._emit(prompt, string[:i], symbol) for i, symbol in enumerate(symbols))

    def _emit(self, prompt: int, before: tuple[int, ...], symbol: int) -> float:
        place = [0.5 if i == len(before) else 0.0 for i in range(self._longest)]
        features = np.array([*self._state(prompt, before), *place, 0.5])
        logits = [float(features @ self._output[:, s]) for s in range(3)]
        return logits[symbol] - math.log(sum(math.exp(x) for x in logits))

    def _state(self, prompt: int, before: tuple[int, ...]) -> NDArray[np.float64]:
        if (prompt, before) not in self._states:
            earlier = self._state(prompt, before[:-1]) if before else np.zeros(HIDDEN)
            self._states[prompt, before] = self._read(earlier, before[-1] if before else 2 + prompt)
        return self._states[prompt, before]

    def _read(self, state: NDArray[np.float64], token: int) -> NDArray[np.float64]:
        new = np.empty(HIDDEN)
        for unit in range(HIDDEN):
            reset = 1 / (1 + math.exp(-(self._reads[token, unit] + state @ self._recurs[:, unit])))
            keep = 1 / (1 + math.exp(-(self._reads[token, HIDDEN + unit] + state @ self._recurs[:, HIDDEN + unit])))
            recalled = state @ self._recurs[:, 2 * HIDDEN + unit]
            fresh = math.tanh(self._reads[token, 2 * HIDDEN + unit] + reset * recalled)
            new[unit] = (1 - keep) * fresh + keep * state[unit]
        return new
