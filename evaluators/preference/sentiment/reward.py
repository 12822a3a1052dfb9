"""The sentiment reward: a TF-IDF logistic regression fitted on the real labels, applied to token ids.

scikit-learn fits it; what is kept are plain arrays, applied by the torch code below. So trials need no scikit-learn and
nothing stored is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.options import OptionsError
from evaluators.preference.sentiment.vocabulary import SPECIALS, EncodedTexts

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_ROWS = 512  # scored at once; the work array is (rows, features, features)


@dataclass(frozen=True)
class SentimentReward:
    """Log-odds that a text is positive, shifted and scaled.

    The features are counts f of known words and of frequent bigrams of them, x = f * idf / |f * idf|. The reward is
    (coef . x + intercept - centre) / scale.

    Attributes:
        bigrams: (K,) sorted codes `first * words + second` of the bigrams counted; their features follow the words'.
        idf, coef: (words + K,) float64.
        words: number of token ids.
        centre, scale: mean and standard deviation of the log-odds over responses of the SFT model.
    """

    bigrams: Tensor
    idf: Tensor
    coef: Tensor
    intercept: float
    words: int
    centre: float = 0.0
    scale: float = 1.0

    def __call__(self, tokens: Tensor) -> Tensor:
        """(N, T) token ids, prompt and response -> (N,) float64 rewards in standard deviations of the SFT model."""
        return (self.log_odds(tokens) - self.centre) / self.scale

    def log_odds(self, tokens: Tensor) -> Tensor:
        """(N, T) token ids, special ones allowed anywhere -> (N,) float64: scikit-learn's decision function."""
        return torch.cat([self._log_odds(part) for part in torch.split(tokens, _ROWS)])

    def _log_odds(self, tokens: Tensor) -> Tensor:
        features = self._features(tokens)  # (N, F), -1 for none
        present = features >= 0
        index = features.clamp_min(0)
        counts = (features.unsqueeze(2) == features.unsqueeze(1)).sum(
            2
        )  # (N, F): how often this feature occurs in its text
        idf = self.idf[index] * present
        # sum over distinct features of (count * idf)^2 = sum over occurrences of count * idf^2
        norm = (counts * idf.square()).sum(1).sqrt().clamp_min(1e-12)
        return (self.coef[index] * idf).sum(1) / norm + self.intercept

    def _features(self, tokens: Tensor) -> Tensor:
        known = tokens >= len(SPECIALS)
        single = torch.where(known, tokens, -1)
        if len(self.bigrams) == 0:
            return single
        codes = tokens[:, :-1] * self.words + tokens[:, 1:]
        place = torch.searchsorted(self.bigrams, codes).clamp_max(len(self.bigrams) - 1)
        hit = (self.bigrams[place] == codes) & known[:, :-1] & known[:, 1:]
        return torch.cat([single, torch.where(hit, place + self.words, -1)], 1)

    def standardised(self, log_odds: Tensor) -> SentimentReward:
        """The same reward with mean 0 and standard deviation 1 over these log-odds."""
        return replace(self, centre=float(log_odds.mean()), scale=max(float(log_odds.std()), 1e-6))

    def tensors(self) -> dict[str, Tensor]:
        """Everything as tensors, for storage."""
        rest = torch.tensor([self.intercept, self.words, self.centre, self.scale], dtype=torch.float64)
        return {"bigrams": self.bigrams, "idf": self.idf, "coef": self.coef, "rest": rest}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> SentimentReward:
        """The inverse of `tensors`."""
        intercept, words, centre, scale = tensors["rest"].tolist()
        return cls(tensors["bigrams"], tensors["idf"], tensors["coef"], intercept, int(words), centre, scale)


def frequent_bigrams(texts: EncodedTexts, words: int, count: int) -> NDArray[np.int64]:
    """Sorted codes of the `count` most frequent pairs of adjacent known words (ties: the smaller code)."""
    codes, inside = _bigram_codes(texts, words)
    found, times = np.unique(codes[inside], return_counts=True)
    order = np.lexsort((found, -times))[:count]
    return np.sort(found[order])


def count_features(texts: EncodedTexts, words: int, bigrams: NDArray[np.int64]) -> csr_matrix:
    """(texts, words + bigrams) sparse counts."""
    from scipy.sparse import csr_matrix

    row = np.repeat(np.arange(len(texts)), np.diff(texts.offsets))
    known = texts.ids >= len(SPECIALS)
    rows, columns = row[known], texts.ids[known]
    if len(bigrams):
        codes, inside = _bigram_codes(texts, words)
        place = np.searchsorted(bigrams, codes).clip(max=len(bigrams) - 1)
        hit = inside & (bigrams[place] == codes)
        rows, columns = np.concatenate([rows, row[:-1][hit]]), np.concatenate([columns, place[hit] + words])
    counts = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(texts), words + len(bigrams)))
    counts.sum_duplicates()
    return counts


def fit_reward(
    texts: EncodedTexts, labels: NDArray[np.bool_], words: int, bigrams: int
) -> tuple[SentimentReward, dict[str, NDArray[np.float64]]]:
    """Fit the classifier on N texts.

    Returns:
        The reward (centre 0, scale 1), and scikit-learn's own decision function on the same texts, under `decision`.

    Raises:
        OptionsError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise OptionsError(
            "preference.sentiment fits its reward with scikit-learn; pip install 'objective-discovery[sentiment]'"
        ) from error
    codes = frequent_bigrams(texts, words, bigrams)
    counts = count_features(texts, words, codes)
    transform = TfidfTransformer().fit(counts)
    x = transform.transform(counts)
    # lbfgs is deterministic; C = 3 does slightly better than 1 on held-out reviews, the exact value hardly matters
    model = LogisticRegression(C=3.0, max_iter=200).fit(x, labels)
    reward = SentimentReward(
        torch.from_numpy(codes),
        torch.from_numpy(np.ascontiguousarray(transform.idf_, np.float64)),
        torch.from_numpy(np.ascontiguousarray(model.coef_[0], np.float64)),
        float(model.intercept_[0]),
        words,
    )
    return reward, {"decision": model.decision_function(x)}


def accuracy(reward: SentimentReward, texts: EncodedTexts, labels: NDArray[np.bool_]) -> float:
    """Share of whole texts whose log-odds have the sign of their label."""
    counts = count_features(texts, reward.words, reward.bigrams.numpy())
    weighted = counts.multiply(reward.idf.numpy()).tocsr()
    norms = np.sqrt(weighted.multiply(weighted).sum(1)).A1.clip(min=1e-12)
    log_odds = weighted @ reward.coef.numpy() / norms + reward.intercept
    return float(np.mean((log_odds > 0) == labels))


def _bigram_codes(texts: EncodedTexts, words: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Codes of all adjacent pairs of the laid-out texts, and which of them lie within one text and are of known words."""
    first, second = texts.ids[:-1], texts.ids[1:]
    inside = (first >= len(SPECIALS)) & (second >= len(SPECIALS))
    inside[texts.offsets[1:-1][texts.offsets[1:-1] > 0] - 1] = False
    return first * words + second, inside
