"""The fingerprints of a campaign's accepted candidates, indexed when they are first compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox.reports import Fingerprint

if TYPE_CHECKING:
    from discovery.novelty import FingerprintIndex


class Remembered:
    """A `FingerprintIndex` that is made when it is first asked.

    Comparing needs torch, whose import takes longer than all else that is done for a campaign with nothing left to do.
    """

    def __init__(self) -> None:
        self._index: FingerprintIndex | None = None
        self._waiting: list[tuple[str, Fingerprint]] = []

    def add(self, candidate_id: str, fingerprint: Fingerprint) -> None:
        """Remember one."""
        self._waiting.append((candidate_id, fingerprint))

    def duplicate_of(self, fingerprint: Fingerprint) -> str | None:
        """Id of the nearest remembered candidate if it is closer than the duplicate distance.

        Raises ValueError if the sizes of two differ (another contract).
        """
        from discovery.novelty import FingerprintIndex

        self._index = self._index or FingerprintIndex()
        for candidate_id, other in self._waiting:
            self._index.add(candidate_id, other)
        self._waiting.clear()
        return self._index.duplicate_of(fingerprint)
