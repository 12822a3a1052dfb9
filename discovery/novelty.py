"""Which stored candidate, if any, a new one behaves like."""

from __future__ import annotations

import numpy as np

from sandbox.fingerprint import DUPLICATE_DISTANCE, distance
from sandbox.reports import Fingerprint

_SAMPLED = 3  # entries per row that are compared first


class FingerprintIndex:
    """Fingerprints of one campaign's accepted candidates, searched exhaustively.

    Every entry of a duplicate lies within `DUPLICATE_DISTANCE` of its row's scale. So a few entries of all rows rule out
    nearly everything in one small vectorised comparison, and only what is left is compared in full. It runs on the thread
    that also serves the campaign, and must stay quick among many thousand candidates.
    """

    def __init__(self) -> None:
        self._items: list[tuple[str, Fingerprint]] = []
        self._shape: tuple[int, int] | None = None
        self._sampled = np.empty((0, 0))  # (capacity, rows * sampled); NaN where the loss is not finite
        self._scales = np.empty((0, 0))  # (capacity, rows * sampled): largest entry of the row that each comes from

    def __len__(self) -> int:
        return len(self._items)

    def add(self, candidate_id: str, fingerprint: Fingerprint) -> None:
        """Remember one. Raises ValueError if its size differs from the others' (another contract)."""
        sampled, scales = self._sample(fingerprint)
        at = len(self._items)
        if at == len(self._sampled):  # double: appending stays cheap for long campaigns
            self._sampled = _grown(self._sampled, len(sampled))
            self._scales = _grown(self._scales, len(scales))
        self._sampled[at], self._scales[at] = sampled, scales
        self._items.append((candidate_id, fingerprint))

    def duplicate_of(self, fingerprint: Fingerprint) -> str | None:
        """Id of the nearest remembered candidate if it is closer than the duplicate distance."""
        if not self._items:
            return None
        sampled, scales = self._sample(fingerprint)
        table, theirs = self._sampled[: len(self)], self._scales[: len(self)]
        apart = np.abs(table - sampled) > DUPLICATE_DISTANCE * np.maximum(theirs, scales)  # NaN is never apart
        masked = np.isnan(table) != np.isnan(sampled)
        left = np.flatnonzero(~(apart | masked).any(axis=1))
        gaps = [(distance(fingerprint, self._items[i][1]), self._items[i][0]) for i in left]
        nearest = min(gaps, default=(1.0, None), key=lambda gap: gap[0])
        return nearest[1] if nearest[0] < DUPLICATE_DISTANCE else None

    def _sample(self, fingerprint: Fingerprint) -> tuple[np.ndarray, np.ndarray]:
        values = np.array(fingerprint.values, dtype=np.float64)  # (rows, values)
        if self._shape is None:
            self._shape = values.shape
        elif values.shape != self._shape:
            raise ValueError("fingerprints of different sizes cannot be compared")
        columns = np.linspace(0, values.shape[1] - 1, _SAMPLED).astype(int)
        scales = np.abs(np.nan_to_num(values)).max(axis=1).repeat(_SAMPLED)
        return values[:, columns].ravel(), scales


def _grown(table: np.ndarray, width: int) -> np.ndarray:
    larger = np.zeros((max(16, 2 * len(table)), width))
    larger[: len(table)] = table.reshape(len(table), width)
    return larger
