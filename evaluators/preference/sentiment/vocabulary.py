"""Words and token ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPECIALS = ("<pad>", "<unknown>", "<end>")  # token ids 0, 1, 2, as the language model has them

_MARKUP = re.compile(r"<[^<>]{1,20}>")  # the reviews carry HTML line breaks
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[.,!?]")
_CLOSING = frozenset(".,!?")
_ENDING = frozenset(".!?")


def words_of(text: str) -> list[str]:
    """Lower-case words, numbers and the marks . , ! ? in order; everything else separates them."""
    return _WORD.findall(_MARKUP.sub(" ", text.replace("’", "'").lower()))


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as token ids, laid end to end: text i is `ids[offsets[i] : offsets[i + 1]]`."""

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int64]:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def subset(self, indices: NDArray[np.int64]) -> EncodedTexts:
        """The texts of these indices, in this order."""
        parts = [self[i] for i in indices]
        offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts], dtype=np.int64)])
        return EncodedTexts(np.concatenate([np.zeros(0, np.int64), *parts]), offsets)


@dataclass(frozen=True)
class Vocabulary:
    """All words by token id; the first three are `SPECIALS`."""

    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.words)

    @property
    def sentence_ends(self) -> list[int]:
        """Token ids of the marks that end a sentence."""
        return [i for i, word in enumerate(self.words) if word in _ENDING]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; unknown words become 1."""
        table = {word: i for i, word in enumerate(self.words)}
        return [table.get(word, 1) for word in words_of(text)]

    def decode(self, tokens: Iterable[int]) -> str:
        """Token ids as text; padding and the end token are left out."""
        out = ""
        for token in tokens:
            if token not in (0, 2):
                word = self.words[token]
                out += word if not out or word in _CLOSING else f" {word}"
        return out


def build_vocabulary(texts: Sequence[str], counted: NDArray[np.bool_], size: int) -> tuple[Vocabulary, EncodedTexts]:
    """Encode all texts by the most frequent words of some of them.

    Args:
        texts: N texts.
        counted: (N,) which texts the words are counted in (the training ones).
        size: number of token ids, special ones included; fewer if there are not as many words.
    """
    table: dict[str, int] = {}
    parts = [np.array([table.setdefault(w, len(table)) for w in words_of(text)], np.int64) for text in texts]
    seen = np.concatenate([np.zeros(0, np.int64), *(p for p, use in zip(parts, counted, strict=True) if use)])
    counts = np.bincount(seen, minlength=len(table))
    known = list(table)
    room = max(0, size - len(SPECIALS))
    ranked = sorted(np.flatnonzero(counts).tolist(), key=lambda i: (-counts[i], known[i]))[:room]
    remap = np.full(len(table) + 1, SPECIALS.index("<unknown>"), np.int64)
    remap[ranked] = np.arange(len(SPECIALS), len(SPECIALS) + len(ranked))
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts], dtype=np.int64)])
    ids = remap[np.concatenate([np.zeros(0, np.int64), *parts])]
    return Vocabulary((*SPECIALS, *(known[i] for i in ranked))), EncodedTexts(ids, offsets)
