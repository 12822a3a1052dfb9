"""The 341 responses as arrays. Responses are ordered by length, then lexicographically; a prefix has the same index.

A response of length n < 4 is its n tokens and EOS; one of length 4 is its 4 tokens alone, as nothing may follow. Its
log-prob is the sum over these (at most 4) emitted symbols.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
from numpy.typing import NDArray

from evaluators.preference.enumerable.definition import EOS, MAX_LENGTH, PROMPTS, RESPONSES, VOCABULARY


@cache
def strings() -> tuple[tuple[int, ...], ...]:
    """All responses as token tuples, in index order."""
    return tuple(s for n in range(MAX_LENGTH + 1) for s in itertools.product(range(VOCABULARY), repeat=n))


@cache
def lengths() -> NDArray[np.int64]:
    """(341,) tokens in each response, EOS not counted."""
    return np.array([len(s) for s in strings()])


@cache
def token_one_hot() -> NDArray[np.float32]:
    """(341, 3, 4) the tokens that the model reads before it emits symbols 1..3; zeros after the response's end."""
    table = np.zeros((RESPONSES, MAX_LENGTH - 1, VOCABULARY), np.float32)
    for i, string in enumerate(strings()):
        for position, token in enumerate(string[: MAX_LENGTH - 1]):
            table[i, position, token] = 1
    return table


@cache
def target_one_hot() -> NDArray[np.float32]:
    """(341, 4, 5) the symbols emitted at positions 0..3; zeros after EOS."""
    table = np.zeros((RESPONSES, MAX_LENGTH, VOCABULARY + 1), np.float32)
    for i, string in enumerate(strings()):
        for position, symbol in enumerate((*string, EOS)[:MAX_LENGTH]):
            table[i, position, symbol] = 1
    return table


@cache
def prompt_one_hot() -> NDArray[np.float32]:
    """(2, 12, 4) first and second token of every prompt."""
    return np.asarray(np.eye(VOCABULARY, dtype=np.float32)[np.array(PROMPTS).T])


@cache
def tokens_before() -> NDArray[np.int64]:
    """(12, 341, 4) the token in front of each position; position 0 follows the prompt. 0 beyond the response's end."""
    table = np.zeros((len(PROMPTS), RESPONSES, MAX_LENGTH), np.int64)
    table[:, :, 0] = np.array(PROMPTS)[:, 1:]
    table[:, :, 1:] = token_one_hot().argmax(-1)
    return table
