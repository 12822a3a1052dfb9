"""Which stored candidate, if any, a new one behaves like."""

from __future__ import annotations

import numpy as np

from sandbox.contract import Conditions
from sandbox.fingerprint import distance, tolerance
from sandbox.reports import Fingerprint

_SAMPLED = 3  # entries per row that are compared first


class FingerprintIndex:
    """Fingerprints of one campaign's accepted candidates; each search is exhaustive.

    Those that were taken under other conditions than a new one cannot be compared with it and are passed over: in an archive
    of an earlier version, or of a candidate that another campaign measured first.
    """

    def __init__(self) -> None:
        self._groups: dict[Conditions | None, _Group] = {}

    def __len__(self) -> int:
        return sum(len(group) for group in self._groups.values())

    def add(self, candidate_id: str, fingerprint: Fingerprint) -> None:
        """Remember one. Raises ValueError if its size differs from the others' of its conditions (another contract)."""
        self._groups.setdefault(fingerprint.conditions, _Group()).add(candidate_id, fingerprint)

    def duplicate_of(self, fingerprint: Fingerprint) -> str | None:
        """Id of the nearest remembered candidate if it is closer than the duplicate distance."""
        group = self._groups.get(fingerprint.conditions)
        return group.duplicate_of(fingerprint) if group is not None else None


class _Group:
    """Fingerprints that can be compared.

    Every entry of a duplicate lies within the tolerance of its row's scale. So a few entries of all rows rule out nearly
    everything in one small vectorised comparison, and only what is left is compared in full. It runs on the thread that
    also serves the campaign, and must stay quick among many thousand candidates.
    """

    def __init__(self) -> None:
        self._items: list[tuple[str, Fingerprint]] = []
        self._shape: tuple[int, int] | None = None
        self._sampled = np.empty((0, 0))  # (capacity, rows * sampled); NaN where the loss is not finite
        self._scales = np.empty((0, 0))  # (capacity, rows * sampled): largest entry of the row that each comes from
        self._tolerances = np.empty((0, 0))  # (capacity, 1)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, candidate_id: str, fingerprint: Fingerprint) -> None:
        sampled, scales = self._sample(fingerprint)
        at = len(self._items)
        if at == len(self._sampled):  # double: appending stays cheap for long campaigns
            self._sampled = _grown(self._sampled, len(sampled))
            self._scales = _grown(self._scales, len(scales))
            self._tolerances = _grown(self._tolerances, 1)
        self._sampled[at], self._scales[at], self._tolerances[at] = sampled, scales, tolerance(fingerprint)
        self._items.append((candidate_id, fingerprint))

    def duplicate_of(self, fingerprint: Fingerprint) -> str | None:
        sampled, scales = self._sample(fingerprint)
        table, theirs = self._sampled[: len(self)], self._scales[: len(self)]
        near = np.maximum(self._tolerances[: len(self)], tolerance(fingerprint))
        apart = np.abs(table - sampled) > near * np.maximum(theirs, scales)  # NaN is never apart
        masked = np.isnan(table) != np.isnan(sampled)
        left = np.flatnonzero(~(apart | masked).any(axis=1))
        items = [self._items[i] for i in left]
        gaps = [(distance(fingerprint, other) / tolerance(fingerprint, other), id_) for id_, other in items]
        nearest = min(gaps, default=(1.0, None), key=lambda gap: gap[0])
        return nearest[1] if nearest[0] < 1.0 else None

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
