"""Which stored candidate, if any, a new one behaves like."""

from __future__ import annotations

import torch

from sandbox.fingerprint import DUPLICATE_DISTANCE, distances, stack
from sandbox.reports import Fingerprint


class FingerprintIndex:
    """Fingerprints of one campaign's accepted candidates, searched exhaustively in one vectorised comparison."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._table = torch.empty(0)

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, candidate_id: str, fingerprint: Fingerprint) -> None:
        """Remember one. Raises ValueError if its size differs from the others' (another contract)."""
        row = stack([fingerprint])
        if not self._ids:
            self._table = row.clone()
        elif row.shape[1:] != self._table.shape[1:]:
            raise ValueError("fingerprints of different sizes cannot be compared")
        elif len(self._ids) == len(self._table):  # double: appending stays cheap for long campaigns
            self._table = torch.cat([self._table, torch.zeros_like(self._table)])
        self._table[len(self._ids)] = row[0]
        self._ids.append(candidate_id)

    def duplicate_of(self, fingerprint: Fingerprint) -> str | None:
        """Id of the nearest remembered candidate if it is closer than the duplicate distance."""
        if not self._ids:
            return None
        gaps = distances(stack([fingerprint]), self._table[: len(self._ids)])
        nearest = int(gaps.argmin())
        return self._ids[nearest] if float(gaps[nearest]) < DUPLICATE_DISTANCE else None
