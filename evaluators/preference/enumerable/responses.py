"""All responses up to a length, and all contexts in which a symbol is emitted, as arrays.

Responses are ordered by length, then lexicographically. A response shorter than the longest emits its tokens and EOS; one of
the longest length its tokens alone, as nothing may follow. A context is a prefix of fewer tokens than that; contexts are
ordered like responses, so a context and the response of the same tokens have the same index.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from evaluators.preference.enumerable.definition import EOS, VOCABULARY

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Tree:
    """The responses of at most `max_length` tokens (T). Y responses, C contexts.

    Attributes:
        starts: (T + 2,) index of the first response of each length, and Y.
        lengths: (Y,) tokens in each response, EOS not counted.
        contexts: (Y, T) the context in which each symbol is emitted; 0 after the response's end.
        symbols: (Y, T) the symbols; EOS after the response's end too.
        emitted: (Y, T) whether there is such a symbol.
    """

    max_length: int
    starts: Ints
    lengths: Ints
    contexts: Ints
    symbols: Ints
    emitted: NDArray[np.bool_]

    @property
    def responses(self) -> int:
        return int(self.starts[-1])

    @property
    def context_count(self) -> int:
        return int(self.starts[-2])


def count(max_length: int) -> int:
    """How many responses there are of at most that many tokens."""
    return int(VOCABULARY ** (max_length + 1) - 1) // (VOCABULARY - 1)


@cache
def tree(max_length: int) -> Tree:
    """The arrays for one greatest length."""
    starts = np.array([0, *np.cumsum([VOCABULARY**n for n in range(max_length + 1)])])
    lengths = np.repeat(np.arange(max_length + 1), np.diff(starts))
    contexts = np.zeros((lengths.size, max_length), np.int64)
    symbols = np.full((lengths.size, max_length), EOS)
    number = np.arange(lengths.size) - starts[lengths]  # the tokens as digits to the base VOCABULARY
    for position in range(max_length):
        after = np.maximum(lengths - position, 0)  # tokens from this position on
        has_token = after > 0
        symbols[has_token, position] = (number // VOCABULARY ** np.maximum(after - 1, 0) % VOCABULARY)[has_token]
        is_context = lengths >= position
        contexts[is_context, position] = (starts[position] + number // VOCABULARY**after)[is_context]
    emitted = np.arange(max_length) <= lengths[:, None]
    return Tree(max_length, starts, lengths, contexts, symbols, emitted)
